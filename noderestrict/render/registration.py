"""What makes the API server call the webhook, and what the webhook may ask the API server."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec

from noderestrict.agents.file import Agent
from noderestrict.policy.extra import Extra
from noderestrict.policy.rule import ANY, OPERATIONS
from noderestrict.policy.rules.events import about_own
from noderestrict.policy.table import table
from noderestrict.render.agents import webhooks
from noderestrict.render.conditions import (
    NODE_USERS,
    Condition,
    Syntax,
    own_csi_node,
    own_event,
    own_lease,
    own_node,
    own_pod,
)
from noderestrict.render.infrastructure import Infrastructure
from noderestrict.render.load import Object, documents
from noderestrict.render.names import REGISTRATION, Installation

NAME = REGISTRATION
_DEFAULT = Installation()
#: The first minor version whose API servers have match conditions.
MATCH_CONDITIONS_SINCE = 28
#: The first minor version whose API servers take optional field selection in them.
OPTIONAL_FIELDS_SINCE = 29
#: What every node has to write to stay Ready. Without match conditions no such write can be left
#: out, so that a webhook that fails closed stops all nodes while it is away.
NEEDED_BY_NODES = frozenset({"leases", "nodes", "pods"})
_VERSIONS = {"": ("v1",)}


#: The resources of each webhook, by its name.
RESOURCES: Mapping[str, tuple[str, ...]] = {
    "pods": ("pods",),
    "nodes": ("nodes",),
    "leases": ("leases",),
    "csinodes": ("csinodes",),
    "tokens": ("serviceaccounts",),
    "claims": ("persistentvolumeclaims",),
    "devices": ("resourceslices",),
    "certificates": ("certificatesigningrequests", "podcertificaterequests"),
    "events": ("events",),
}


def _webhooks(
    extra: Extra, infrastructure: Infrastructure | None, syntax: Syntax
) -> dict[str, tuple[tuple[str, ...], Condition]]:
    """Return the resources and the match condition of each webhook, by name.

    There are several webhooks so that each evaluates the condition of its own resource only.
    """
    conditions = {
        "pods": own_pod(syntax),
        "nodes": own_node(extra, syntax),
        "leases": own_lease(syntax),
        "csinodes": own_csi_node(syntax),
        "events": own_event(syntax),
    }
    if infrastructure is not None:
        conditions["tokens"] = infrastructure.condition(syntax)
    return {
        name: (resources, conditions.get(name, NODE_USERS))
        for name, resources in RESOURCES.items()
        if name != "events" or about_own.id in extra.rules
    }


def webhook_rules(only: Collection[str] | None = None, extra: Extra | None = None) -> list[Object]:
    """Return the rules of a webhook for everything that the policy judges, and for nothing else.

    What is not sent cannot be denied. What is sent costs the API server time, whoever sends it.

    Args:
        only: plural resources; all if None.
        extra: policy beyond the in-tree plugin.
    """
    rows = [key for key in table((extra or Extra()).rules) if only is None or key[1] in only]
    judged: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for group, resource in dict.fromkeys((group, resource) for group, resource, _, _ in rows):
        of_it = [(sub, operation) for *of, sub, operation in rows if of == [group, resource]]
        for sub in _sub_resources({sub for sub, _ in of_it}):
            operations = _operations(sub, of_it)
            judged.setdefault((group, operations), []).append(f"{resource}/{sub}".rstrip("/"))
    return [
        {
            "apiGroups": [group],
            "apiVersions": list(_VERSIONS.get(group, (ANY,))),
            "operations": list(operations),
            "resources": resources,
            "scope": ANY,
        }
        for (group, operations), resources in judged.items()
    ]


def _sub_resources(judged: Set[str]) -> Sequence[str]:
    """Return the subresources to send, of which "" is the resource itself.

    Args:
        judged: those of the rows; ``*`` is any of them, and the resource itself.
    """
    return ("", ANY) if ANY in judged else sorted(judged)


def _operations(sent: str, judged: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the operations to send for a subresource, "" for the resource itself.

    Args:
        sent: the subresource, ``*`` for all.
        judged: subresource and operation of each row.
    """
    found = {operation for sub, operation in judged if sub in (sent, ANY) or (sent == ANY and sub)}
    return tuple(one for one in OPERATIONS if not found.isdisjoint((one, ANY)))


def webhook_configuration(
    client_config: Mapping[str, Any],
    *,
    failure_policy: str = "Fail",
    timeout_seconds: int = 3,
    annotations: Mapping[str, str] | None = None,
    extra: Extra | None = None,
    infrastructure: Infrastructure | None = None,
    match_conditions: bool = True,
    optional_fields: bool = True,
    agents: Sequence[Agent] = (),
) -> Object:
    """Return the ValidatingWebhookConfiguration for all rules.

    While the webhook is unavailable, nodes can still do what keeps a cluster alive and what CEL
    alone proves harmless: renew their own Lease, report the status of their own Node and pods,
    register, and delete their own pods. All their other requests are denied. Without match
    conditions, whatever concerns leases, nodes and pods is allowed meanwhile.

    Args:
        client_config: of every webhook: ``url`` or ``service``, and ``caBundle``.
        failure_policy: what happens to all other requests without an answer.
        timeout_seconds: for one answer.
        annotations: of the object.
        extra: policy beyond the in-tree plugin.
        infrastructure: whose token requests are left out; None for nobody's.
        match_conditions: whether the API server has them, as Kubernetes 1.28 does; without them,
            no token request is left out.
        optional_fields: whether it takes optional field selection in them, as Kubernetes 1.29 does.
        agents: that are held to their node.

    Raises:
        ValueError: there are agents, but no match conditions.
    """
    syntax = Syntax(optional_fields)
    extra = extra or Extra()
    if agents and not match_conditions:
        raise ValueError(
            f"agents need match conditions, which Kubernetes has since 1.{MATCH_CONDITIONS_SINCE}"
        )
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
                "namespaceSelector": selects_everything(),
                "objectSelector": selects_everything(),
                "rules": webhook_rules(resources, extra),
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "matchPolicy": "Equivalent",
                "failurePolicy": (
                    failure_policy
                    if match_conditions or NEEDED_BY_NODES.isdisjoint(resources)
                    else "Ignore"
                ),
                "timeoutSeconds": timeout_seconds,
                **({"matchConditions": [dict(condition)]} if match_conditions else {}),
            }
            for name, (resources, condition) in _webhooks(extra, infrastructure, syntax).items()
        ]
        + agent_webhooks(agents, client_config, failure_policy, timeout_seconds),
    }


def agent_webhooks(
    agents: Sequence[Agent],
    client_config: Mapping[str, Any],
    failure_policy: str = "Fail",
    timeout_seconds: int = 3,
) -> list[Object]:
    """Return the webhooks for agents; the arguments are those of ``webhook_configuration``."""
    return [
        {
            "name": name,
            "clientConfig": _client(client_config),
            "namespaceSelector": selects_everything(),
            "objectSelector": selects_everything(),
            "rules": rules,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "matchPolicy": "Equivalent",
            "failurePolicy": failure_policy,
            "timeoutSeconds": timeout_seconds,
            "matchConditions": [condition],
        }
        for name, (rules, condition) in webhooks(agents).items()
    ]


def match_constraints(rules: Sequence[Object]) -> Object:
    """Return the constraints of a policy that excludes nothing of what its rules name."""
    return {
        "matchPolicy": "Equivalent",
        "namespaceSelector": selects_everything(),
        "objectSelector": selects_everything(),
        "resourceRules": list(rules),
    }


def selects_everything() -> Object:
    """Return a selector that excludes nothing.

    With the null, an apply also removes labels that others have set.
    """
    return {"matchExpressions": [], "matchLabels": None}


def _client(given: Mapping[str, Any]) -> Object:
    # The port is the API server's default; the null does the same as in a selector.
    if given.get("service"):
        return {**given, "service": {"port": 443, **given["service"]}, "url": None}
    return {**given, "service": None}


@dataclass(frozen=True, slots=True)
class Registration:
    """What distinguishes one rendered registration from another; the rest follows from the rules.

    Attributes:
        client_config: of every webhook, ``url`` or ``service``, without a CA.
        failure_policy: what happens to requests without an answer.
        timeout_seconds: for one answer.
        name: of the ValidatingWebhookConfiguration.
        infrastructure: whose token requests are left out; None for nobody's.
        match_conditions: whether the API server has them, as Kubernetes 1.28 does.
        optional_fields: whether it takes optional field selection in them, as Kubernetes 1.29 does.
    """

    client_config: Mapping[str, Any]
    failure_policy: str = "Fail"
    timeout_seconds: int = 3
    name: str = NAME
    infrastructure: Infrastructure | None = None
    match_conditions: bool = True
    optional_fields: bool = True

    def flag(self) -> str:
        """Return the flag that tells a server which registration to expect."""
        value: Object = {
            "name": self.name,
            "clientConfig": dict(self.client_config),
            "failurePolicy": self.failure_policy,
            "timeoutSeconds": self.timeout_seconds,
        }
        if self.infrastructure is not None:
            value["infrastructure"] = {
                "accounts": list(self.infrastructure.accounts),
                "audiences": list(self.infrastructure.audiences),
            }
        if not self.match_conditions:
            value["matchConditions"] = False
        elif not self.optional_fields:
            value["optionalFields"] = False
        return f"--expected-registration={msgspec.json.encode(value).decode()}"

    def value(
        self,
        extra: Extra,
        annotations: Mapping[str, str] | None = None,
        agents: Sequence[Agent] = (),
    ) -> Object:
        """Return the ValidatingWebhookConfiguration.

        Args:
            extra: policy beyond the in-tree plugin.
            annotations: of the object.
            agents: that are held to their node.

        Raises:
            ValueError: there are agents, but no match conditions.
        """
        rendered = webhook_configuration(
            self.client_config,
            failure_policy=self.failure_policy,
            timeout_seconds=self.timeout_seconds,
            annotations=annotations,
            extra=extra,
            infrastructure=self.infrastructure,
            match_conditions=self.match_conditions,
            optional_fields=self.optional_fields,
            agents=agents,
        )
        rendered["metadata"]["name"] = self.name
        return rendered

    def agent_webhooks(self, agents: Sequence[Agent]) -> list[Object]:
        """Return the webhooks for agents."""
        return agent_webhooks(agents, self.client_config, self.failure_policy, self.timeout_seconds)


class _Infrastructure(msgspec.Struct, forbid_unknown_fields=True):
    accounts: tuple[str, ...]
    audiences: tuple[str, ...]


class _Flag(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    client_config: dict[str, Any]
    failure_policy: str = "Fail"
    timeout_seconds: int = 3
    name: str = NAME
    infrastructure: _Infrastructure | None = None
    match_conditions: bool = True
    optional_fields: bool = True


def parse_registration(text: str) -> Registration:
    """Return the registration that a flag describes.

    Raises:
        ValueError: the text is invalid; the message says why.
    """
    try:
        flag = msgspec.json.decode(text, type=_Flag)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{text[:100]!r} is not a registration: {error}") from None
    client = flag.client_config
    service = client.get("service")
    if len(client) != 1 or not (isinstance(client.get("url"), str) or isinstance(service, dict)):
        raise ValueError(f"{text[:100]!r}: clientConfig needs either url or service")
    if flag.failure_policy not in ("Fail", "Ignore"):
        raise ValueError(f"{text[:100]!r}: failurePolicy must be Fail or Ignore")
    infrastructure = None
    if (given := flag.infrastructure) is not None:
        try:
            infrastructure = Infrastructure(given.accounts, given.audiences)
        except ValueError as error:
            raise ValueError(f"{text[:100]!r}: {error}") from None
    return Registration(
        client,
        flag.failure_policy,
        flag.timeout_seconds,
        flag.name,
        infrastructure,
        flag.match_conditions,
        flag.optional_fields,
    )


def mirror_pod_policy(installation: Installation = _DEFAULT) -> list[Object]:
    """Return what keeps nodes from creating pods in our namespace, and its binding.

    Args:
        installation: whose namespace.
    """
    policy, binding = documents("mirror-pods.yaml", installation)
    policy["spec"]["matchConditions"] = [dict(NODE_USERS)]
    return [policy, binding]


def cluster_role() -> Object:
    """Return what the server is allowed to do: read what it looks up, and ask."""
    return documents("manifests/base/rbac.yaml")[0]


def cluster_role_binding(subject: Mapping[str, str]) -> Object:
    """Return the binding of the role to one subject."""
    binding = documents("manifests/base/rbac.yaml")[1]
    return {**binding, "subjects": [dict(subject)]}
