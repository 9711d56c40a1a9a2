"""What tells the API server to ask us, and what we may ask it."""

from collections.abc import Mapping
from typing import Any

from noderestrict.policy.table import ANY, TABLE

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

#: Only node users. The group is tested in the rules too; this only saves calls.
NODE_USERS = {
    "name": "node-users",
    "expression": "has(request.userInfo.username) && has(request.userInfo.groups) && "
    "'system:nodes' in request.userInfo.groups && "
    "request.userInfo.username.startsWith('system:node:')",
}


def webhook_rules() -> list[Object]:
    """Return the rules of a webhook configuration for everything that the table judges.

    A resource is named with all its subresources: what is not sent cannot be refused.
    """
    resources: dict[str, dict[str, None]] = {}
    for row in TABLE:
        group, resource, _, _ = row.target
        resources.setdefault(group, {})[resource] = None
    rules = []
    for group, names in resources.items():
        rules.append(
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
        )
    return rules


def webhook_configuration(
    client_config: Mapping[str, Any], *, failure_policy: str = "Fail", timeout_seconds: int = 3
) -> Object:
    """Return a ValidatingWebhookConfiguration with one webhook for all rules.

    Args:
        client_config: of the webhook: ``url`` or ``service``, and ``caBundle``.
        failure_policy: what happens to requests of nodes when no answer comes.
        timeout_seconds: for one answer.
    """
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": "rules.noderestrict.io",
                "clientConfig": dict(client_config),
                "rules": webhook_rules(),
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "matchPolicy": "Equivalent",
                "failurePolicy": failure_policy,
                "timeoutSeconds": timeout_seconds,
                "matchConditions": [NODE_USERS],
            }
        ],
    }


def cluster_role() -> Object:
    """Return what the server may do: read what it looks up, and ask the authorizer."""
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
                "apiGroups": ["authorization.k8s.io"],
                "resources": ["subjectaccessreviews"],
                "verbs": ["create"],
            },
            {
                "nonResourceURLs": ["/version", "/.well-known/openid-configuration"],
                "verbs": ["get"],
            },
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
