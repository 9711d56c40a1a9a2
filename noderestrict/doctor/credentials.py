"""Who could change the registration, or read what our pods are given."""

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.api.scanner import ScanError
from noderestrict.cluster.authorizer import read_graph
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.objects import tree
from noderestrict.doctor.access import Right, shown, those_that
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.registration import differences
from noderestrict.graph.graph import Graph
from noderestrict.pki.check import KeyPairError
from noderestrict.policy.extra import Extra
from noderestrict.policy.rules.nodes import label_is_forbidden
from noderestrict.render.registration import Registration, parse_registration
from noderestrict.render.workload import DEDICATED_NODES, NAMESPACE, NEW_CA, TLS_SECRET

_CHECK, _NODES, _REMAINS = "credentials", "trusted nodes", "old manifests"
_EXPECTED = "registration"
_NOT_FOUND = 404
_SHOWN = 10
_APPLY = 'apply the rendered manifests again, and see "Upgrade" in docs/install.md'
_WORKLOADS = (
    (f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", ("spec", "template", "spec")),
    (f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets", ("spec", "template", "spec")),
    (f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs",
     ("spec", "jobTemplate", "spec", "template", "spec")),
    (f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", ("spec", "template", "spec")),
)  # fmt: skip
#: Each gives the token of any account of the namespace.
_HARMFUL = (
    Right("create", "", "secrets", namespace=NAMESPACE),
    Right("create", "", "pods", namespace=NAMESPACE),
)
_OLD = "noderestrict-certs"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
#: Of the certificate job as it once was: its token never ends, and may change the registration.
_OLD_OBJECTS = {
    f"Secret {NAMESPACE}/{_OLD}-token": f"/api/v1/namespaces/{NAMESPACE}/secrets/{_OLD}-token",
    f"ServiceAccount {NAMESPACE}/{_OLD}": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{_OLD}",
    f"CronJob {NAMESPACE}/{_OLD}": f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{_OLD}",
    f"Job {NAMESPACE}/{_OLD}": f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{_OLD}",
    f"RoleBinding {NAMESPACE}/{_OLD}": f"{_RBAC}/namespaces/{NAMESPACE}/rolebindings/{_OLD}",
    f"ClusterRoleBinding {_OLD}": f"{_RBAC}/clusterrolebindings/{_OLD}",
}


@dataclass(frozen=True, slots=True)
class _Trust:
    """Nodes that our pods may run on.

    Attributes:
        selectors: node labels, of each workload.
        api_servers: nodes that run one, as far as it can be seen.
        nodes: every Node by its name.
        doubled: nodes that report an API server's address, as another node does, too.
    """

    selectors: Mapping[str, Mapping[str, str]]
    api_servers: frozenset[str]
    nodes: Mapping[str, Any]
    doubled: tuple[str, ...] = ()

    def matching(self, selector: Mapping[str, str]) -> list[str]:
        return sorted(
            name for name, node in self.nodes.items() if selector.items() <= _labels(node).items()
        )

    def guarded(self, selector: Mapping[str, str]) -> bool:
        """Tell whether a label is for this alone, and no node may give it to itself."""
        return any(_is_dedicated(key) for key in selector)

    def trusted(self) -> frozenset[str]:
        return self.api_servers | {
            name
            for selector in self.selectors.values()
            if selector and (self.guarded(selector) or not self.api_servers)
            for name in self.matching(selector)
        }


def _is_dedicated(key: str) -> bool:
    return label_is_forbidden(key) and "node-restriction.kubernetes.io/" in key


def _labels(node: Any) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


async def check_trusted_nodes(connection: Connection) -> AsyncIterator[Finding]:
    """Yield, for each selector of our pods, whether it chooses nodes that are to be trusted.

    Raises:
        ClusterError: the cluster could not be asked.
    """
    trust = await _read_trust(connection)
    by_selector: dict[str, tuple[Mapping[str, str], list[str]]] = {}
    for workload, selector in trust.selectors.items():
        key = ",".join(f"{label}={value}" for label, value in sorted(selector.items()))
        by_selector.setdefault(key, (selector, []))[1].append(workload)
    if trust.doubled:
        yield failed(
            _NODES, f"{_some(trust.doubled)}: report the same address, which is an API server's: "
            "one of them lies", "look at the addresses in their status",
        )  # fmt: skip
    for text, (selector, workloads) in by_selector.items():
        what = _some(workloads)
        if not selector:
            yield failed(_NODES, f"{what}: may run on any node, which then reads its Secrets",
                         _APPLY)  # fmt: skip
            continue
        matching = trust.matching(selector)
        if not matching:
            yield failed(
                _NODES, f"{what}: no node has {text}: the pods cannot run",
                "set nodes apart: see \"Trusted nodes\" in docs/install.md",
            )  # fmt: skip
        elif trust.guarded(selector):
            yield _dedicated(trust, matching, text)
        else:
            yield _control_plane(trust, matching, text)


def _dedicated(trust: _Trust, matching: Sequence[str], text: str) -> Finding:
    untainted = [name for name in matching if not _tainted(trust.nodes[name])]
    if untainted:
        return warned(
            _NODES, f"{_some(untainted)}: has {text} but no taint {DEDICATED_NODES}: other pods "
            "run there, too", f"kubectl taint node NODE {DEDICATED_NODES}=trusted:NoSchedule",
        )  # fmt: skip
    return passed(_NODES, f"{text}: {_some(matching)}")


def _tainted(node: Any) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    return any(
        _is_dedicated(taint["key"]) and taint["effect"] in ("NoSchedule", "NoExecute")
        for taint in taints
    )


def _control_plane(trust: _Trust, matching: Sequence[str], text: str) -> Finding:
    if not trust.api_servers:
        return warned(
            _NODES, f"{text}: {_some(matching)}: whether they run an API server cannot be seen",
            "remove the label from every node that you do not trust",
        )  # fmt: skip
    others = [name for name in matching if name not in trust.api_servers]
    if others:
        return failed(
            _NODES, f"{_some(others)}: has {text} but runs no API server: it may have given itself "
            "the label, and reads what our pods are given",
            "remove the label, and replace credentials: see \"Upgrade\" in docs/install.md",
        )  # fmt: skip
    return passed(_NODES, f"{text}: {_some(matching)}")


def rights_to_change(configuration: str) -> tuple[Right, ...]:
    """Return the rights to change a ValidatingWebhookConfiguration."""
    group, resource = "admissionregistration.k8s.io", "validatingwebhookconfigurations"
    return tuple(
        Right(verb, group, resource, configuration) for verb in ("update", "patch", "delete")
    )


async def check_credentials(connection: Connection, configuration: str) -> AsyncIterator[Finding]:
    """Yield which nodes can read our Secrets or get tokens, and which accounts can do harm.

    Args:
        connection: to the cluster.
        configuration: name of the ValidatingWebhookConfiguration.

    Raises:
        ClusterError: the cluster could not be asked.
    """
    trusted = (await _read_trust(connection)).trusted()
    graph = await read_graph(connection)
    accounts = await _names(connection, "serviceaccounts")
    objects = [("secrets", NAMESPACE, name) for name in await _names(connection, "secrets")]
    objects += [("serviceaccounts", NAMESPACE, name) for name in accounts if name != "default"]
    for vertex in objects:
        yield _readers(graph, vertex, trusted)
    harmful = (*rights_to_change(configuration), *_HARMFUL)
    for account in accounts:
        user = f"system:serviceaccount:{NAMESPACE}:{account}"
        has = await those_that(connection, user, harmful)
        if has and account == NEW_CA:
            yield warned(
                _CHECK, f"{user} may {shown(has)} while the CA is replaced",
                "kubectl delete -f the overlay's new-ca.yaml as soon as that is done",
            )  # fmt: skip
        elif has:
            yield failed(_CHECK, f"{user} may {shown(has)}", _APPLY)


def _readers(graph: Graph, vertex: tuple[str, str, str], trusted: frozenset[str]) -> Finding:
    nodes = graph.who(vertex)
    what = f"{'Secret' if vertex[0] == 'secrets' else 'tokens of ServiceAccount'} {vertex[2]}"
    others = [name for name in nodes if name not in trusted]
    if others:
        pods = sorted(
            {
                f"{step[1]}/{step[2]}"
                for node in others[:_SHOWN]
                for step in graph.path(node, vertex)
                if step[0] == "pods"
            }
        )
        return failed(
            _CHECK, f"{what}: open to {_some(others)}, through pods {_some(pods)}",
            "delete these pods, and replace the credential: see \"Upgrade\" in docs/install.md",
        )  # fmt: skip
    return passed(_CHECK, f"{what}: open to {_some(nodes) if nodes else 'no node'}")


async def check_endpoints(
    connection: Connection, service: str, slices: Sequence[Any]
) -> AsyncIterator[Finding]:
    """Yield endpoints of our Service that are on nodes that are not to be trusted.

    Args:
        connection: to the cluster.
        service: namespace and name, for the message.
        slices: the EndpointSlices of the Service.

    Raises:
        ClusterError: the cluster could not be asked.
    """
    trusted = (await _read_trust(connection)).trusted()
    for one in slices:
        for endpoint in one.get("endpoints") or ():
            node = endpoint.get("nodeName")
            if trusted and node and node not in trusted:
                pod = (endpoint.get("targetRef") or {}).get("name")
                yield failed(
                    "endpoints", f"Service {service}: pod {pod} on node {node}, which is not to be "
                    "trusted, gets a share of the calls",
                    "delete that pod, and see \"Trusted nodes\" in docs/install.md",
                )  # fmt: skip


async def check_expected(
    connection: Connection, configuration: Mapping[str, Any], extra: Extra
) -> AsyncIterator[Finding]:
    """Yield where the registration differs from what the running servers were rendered with.

    Args:
        connection: to the cluster.
        configuration: the installed ValidatingWebhookConfiguration.
        extra: the policy beyond the in-tree plugin.

    Raises:
        ClusterError: the cluster could not be asked.
    """
    rendered = None
    for path, steps in _WORKLOADS[:2]:
        for value in await _items(connection, path):
            rendered = _expected_by(_spec(value, steps)) or rendered
    if rendered is None or rendered.name != configuration["metadata"]["name"]:
        return
    secrets = await _items(connection, f"/api/v1/namespaces/{NAMESPACE}/secrets")
    held = [one.get("data") or {} for one in secrets if one["metadata"]["name"] == TLS_SECRET]
    ca = held[0].get("ca.crt") if held else None
    trusted = base64.b64decode(ca) if ca else None
    try:
        found = differences(configuration, rendered.value(extra), trusted)
    except KeyPairError as error:
        yield warned(
            _EXPECTED, f"ca.crt of Secret {TLS_SECRET}: {error}", "noderestrict certs check"
        )
        return
    for text in found[:_SHOWN]:
        yield failed(
            _EXPECTED, f"{text}: not as the servers were rendered with",
            "put it back by both commands of docs/install.md, or render the manifests again",
        )  # fmt: skip
    if not found:
        yield passed(_EXPECTED, "as the servers were rendered with")


def _expected_by(spec: Mapping[str, Any]) -> Registration | None:
    """Return what the servers of a pod template expect: the last of their flags counts."""
    flag = "--expected-registration="
    given = [
        argument.removeprefix(flag)
        for container in spec.get("containers") or ()
        for argument in container.get("args") or ()
        if argument.startswith(flag)
    ]
    try:
        return parse_registration(given[-1]) if given else None
    except ValueError:
        return None


async def check_old_manifests(connection: Connection) -> AsyncIterator[Finding]:
    """Yield what an older version of the manifests has left behind.

    Raises:
        ClusterError: the cluster could not be asked.
    """
    found = []
    for name, path in _OLD_OBJECTS.items():
        try:
            await connection.get(path)
        except ClusterError as error:
            if error.code != _NOT_FOUND:
                raise
        else:
            found.append(name)
    if found:
        yield failed(
            _REMAINS, f"{', '.join(found)}: {'are' if len(found) > 1 else 'is'} still there: a "
            "token that never ends may change the registration",
            "delete them: see \"Upgrade\" in docs/install.md",
        )  # fmt: skip
    else:
        yield passed(_REMAINS, "none is left")


async def _read_trust(connection: Connection) -> _Trust:
    nodes = {node["metadata"]["name"]: node for node in await _items(connection, "/api/v1/nodes")}
    selectors: dict[str, Mapping[str, str]] = {}
    for path, steps in _WORKLOADS:
        for value in await _items(connection, path):
            spec = _spec(value, steps)
            kind = path.rpartition("/")[2].removesuffix("s")
            selectors[f"{kind} {value['metadata']['name']}"] = spec.get("nodeSelector") or {}
    claimed = [
        [name for name, node in nodes.items() if address in _addresses(node)]
        for address in await _api_server_addresses(connection)
    ]
    single = {names[0] for names in claimed if len(names) == 1}
    doubled = {name for names in claimed if len(names) > 1 for name in names}
    return _Trust(selectors, frozenset(single - doubled), nodes, tuple(sorted(doubled)))


async def _api_server_addresses(connection: Connection) -> list[str]:
    """Return the addresses that API servers publish for themselves.

    Not the labels of their pods: these are mirror pods, whose labels a node chooses.
    """
    slices = await _items(
        connection,
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        {"labelSelector": "kubernetes.io/service-name=kubernetes"},
    )
    return sorted(
        {
            address
            for one in slices
            for endpoint in one.get("endpoints") or ()
            for address in endpoint.get("addresses") or ()
        }
    )


def _addresses(node: Any) -> set[str]:
    return {one["address"] for one in (node.get("status") or {}).get("addresses") or ()}


def _spec(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        value = value[step]
    return value


async def _names(connection: Connection, plural: str) -> list[str]:
    items = await _items(connection, f"/api/v1/namespaces/{NAMESPACE}/{plural}")
    return [item["metadata"]["name"] for item in items]


async def _items(
    connection: Connection, path: str, query: Mapping[str, str] | None = None
) -> list[Any]:
    try:
        value = tree(await connection.get(path, query))
    except ScanError as error:
        raise ClusterError(f"GET {path}: {error}") from None
    return value.get("items") or []


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
