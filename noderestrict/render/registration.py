"""What tells the API server to ask us, and what we may ask it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import ANY
from noderestrict.policy.table import table
from noderestrict.render.conditions import (
    NODE_USERS,
    OWN_CSI_NODE,
    OWN_EVENT,
    OWN_LEASE,
    OWN_POD,
    Condition,
    own_node,
)

Object = dict[str, Any]

NAME = "noderestrict"
_OPERATIONS = ("CREATE", "UPDATE", "DELETE")
#: Subresources of each judged resource; a "*/*" rule would send far more than is judged.
_VERSIONS = {"": ("v1",)}
_SUB_RESOURCES = {
    "pods": ("", "*"),
    "nodes": ("", "*"),
    "persistentvolumeclaims": ("", "*"),
    "serviceaccounts": ("token",),
}


def _webhooks(extra: Extra) -> dict[str, tuple[tuple[str, ...], Condition | None]]:
    """Return, by name, the resources of one webhook, and the condition under which it is not asked.

    Several webhooks instead of one, so that each evaluates only the condition of its own resource.
    """
    webhooks: dict[str, tuple[tuple[str, ...], Condition | None]] = {
        "pods": (("pods",), OWN_POD),
        "nodes": (("nodes",), own_node(extra)),
        "leases": (("leases",), OWN_LEASE),
        "csinodes": (("csinodes",), OWN_CSI_NODE),
        "tokens": (("serviceaccounts",), None),
        "claims": (("persistentvolumeclaims",), None),
        "devices": (("resourceslices",), None),
        "certificates": (("certificatesigningrequests", "podcertificaterequests"), None),
    }
    if "events/about-own" in extra.rules:
        webhooks["events"] = (("events",), OWN_EVENT)
    return webhooks


def webhook_rules(only: Collection[str] | None = None, extra: Extra | None = None) -> list[Object]:
    """Return the rules of a webhook for everything that the table judges.

    A resource is named with all its subresources: what is not sent cannot be refused.

    Args:
        only: plural resources; all if None.
        extra: policy beyond the in-tree plugin.
    """
    resources: dict[str, dict[str, None]] = {}
    for group, resource, _, _ in table((extra or Extra()).rules):
        if only is None or resource in only:
            resources.setdefault(group, {})[resource] = None
    return [
        {
            "apiGroups": [group],
            "apiVersions": list(_VERSIONS.get(group, (ANY,))),
            "operations": list(_OPERATIONS),
            "resources": [
                f"{name}/{sub}" if sub else name
                for name in names
                for sub in _SUB_RESOURCES.get(name, ("", "*"))
            ],
            "scope": ANY,
        }
        for group, names in resources.items()
    ]


def webhook_configuration(
    client_config: Mapping[str, Any],
    *,
    failure_policy: str = "Fail",
    timeout_seconds: int = 3,
    annotations: Mapping[str, str] | None = None,
    extra: Extra | None = None,
) -> Object:
    """Return the ValidatingWebhookConfiguration for all rules.

    Requests of nodes that keep a cluster alive, and that CEL alone proves harmless, pass while the
    webhook is away: renewing the own lease, reporting the status of the own Node and of own pods,
    registering, deleting own pods. All others are refused then.

    Args:
        client_config: of every webhook: ``url`` or ``service``, and ``caBundle``.
        failure_policy: what happens to the others when no answer comes.
        timeout_seconds: for one answer.
        annotations: of the object.
        extra: policy beyond the in-tree plugin.
    """
    metadata: Object = {"name": NAME}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": metadata,
        "webhooks": [
            {
                "name": f"{name}.noderestrict.io",
                "clientConfig": _client(client_config),
                "namespaceSelector": _everything(),
                "objectSelector": _everything(),
                "rules": webhook_rules(resources, extra),
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "matchPolicy": "Equivalent",
                "failurePolicy": failure_policy,
                "timeoutSeconds": timeout_seconds,
                "matchConditions": [NODE_USERS, *([condition] if condition else [])],
            }
            for name, (resources, condition) in _webhooks(extra or Extra()).items()
        ],
    }


def _everything() -> Object:
    """Return a selector that leaves nothing out.

    The null makes an apply take back what somebody else has set, of which it knows nothing.
    """
    return {"matchExpressions": [], "matchLabels": None}


def _client(given: Mapping[str, Any]) -> Object:
    # The port as the API server completes it; the null as in a selector.
    if given.get("service"):
        return {**given, "service": {"port": 443, **given["service"]}, "url": None}
    return {**given, "service": None}


@dataclass(frozen=True, slots=True)
class Registration:
    """What tells one rendered registration from another; all else follows from the rules.

    Attributes:
        client_config: of every webhook, ``url`` or ``service``, without a CA.
        failure_policy: what happens when no answer comes.
        timeout_seconds: for one answer.
        name: of the ValidatingWebhookConfiguration.
    """

    client_config: Mapping[str, Any]
    failure_policy: str = "Fail"
    timeout_seconds: int = 3
    name: str = NAME

    def flag(self) -> str:
        """Return the flag that tells a server what it is to find."""
        value = {
            "name": self.name,
            "clientConfig": dict(self.client_config),
            "failurePolicy": self.failure_policy,
            "timeoutSeconds": self.timeout_seconds,
        }
        return f"--expected-registration={msgspec.json.encode(value).decode()}"

    def value(self, extra: Extra, annotations: Mapping[str, str] | None = None) -> Object:
        """Return the ValidatingWebhookConfiguration.

        Args:
            extra: policy beyond the in-tree plugin.
            annotations: of the object.
        """
        rendered = webhook_configuration(
            self.client_config,
            failure_policy=self.failure_policy,
            timeout_seconds=self.timeout_seconds,
            annotations=annotations,
            extra=extra,
        )
        rendered["metadata"]["name"] = self.name
        return rendered


class _Flag(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    client_config: dict[str, Any]
    failure_policy: str = "Fail"
    timeout_seconds: int = 3
    name: str = NAME


def parse_registration(text: str) -> Registration:
    """Return the registration that a flag describes.

    Raises:
        ValueError: it is no such description; the message says why.
    """
    try:
        flag = msgspec.json.decode(text, type=_Flag)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{text[:100]!r} describes no registration: {error}") from None
    client = flag.client_config
    service = client.get("service")
    if len(client) != 1 or not (isinstance(client.get("url"), str) or isinstance(service, dict)):
        raise ValueError(f"{text[:100]!r}: clientConfig needs either url or service")
    if flag.failure_policy not in ("Fail", "Ignore"):
        raise ValueError(f"{text[:100]!r}: failurePolicy must be Fail or Ignore")
    return Registration(client, flag.failure_policy, flag.timeout_seconds, flag.name)


def mirror_pod_policy(namespace: str) -> list[Object]:
    """Return what keeps nodes from creating pods in a namespace, and its binding.

    A node may create mirror pods, with labels of its choice: one with those that our Service
    selects gets a share of the API server's calls, which then fail.

    Args:
        namespace: of the Service.
    """
    api, name = "admissionregistration.k8s.io/v1", f"{NAME}-mirror-pods"
    return [
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": namespace}
                    },
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["pods"],
                        }
                    ],
                },
                "matchConditions": [dict(NODE_USERS)],
                "validations": [
                    {
                        "expression": "false",
                        "message": f"nodes may create no pods in namespace {namespace}: its "
                        "Service would send them the API server's calls",
                    }
                ],
            },
        },
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]


def cluster_role() -> Object:
    """Return what the server may do: read what it looks up and its registration, and ask."""
    read = ["get", "list", "watch"]
    core = ["nodes", "persistentvolumeclaims", "persistentvolumes", "pods", "serviceaccounts"]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": [
            {"apiGroups": [""], "resources": core, "verbs": read},
            {
                "apiGroups": ["storage.k8s.io"],
                "resources": ["csidrivers", "volumeattachments"],
                "verbs": read,
            },
            {"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": read},
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["podcertificaterequests"],
                "verbs": read,
            },
            {
                "apiGroups": ["admissionregistration.k8s.io"],
                "resources": ["validatingwebhookconfigurations"],
                "resourceNames": [NAME],
                "verbs": ["get"],
            },
            {
                "apiGroups": ["authorization.k8s.io"],
                "resources": ["subjectaccessreviews"],
                "verbs": ["create"],
            },
            {
                "apiGroups": ["authentication.k8s.io"],
                "resources": ["tokenreviews"],
                "verbs": ["create"],
            },
            {"nonResourceURLs": ["/version"], "verbs": ["get"]},
        ],
    }


def cluster_role_binding(subject: Mapping[str, str]) -> Object:
    """Return the binding of the role to one subject."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": NAME,
        },
        "subjects": [dict(subject)],
    }
