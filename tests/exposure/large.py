"""A large cluster: most accounts hold a little in their namespace, few hold much."""

from collections.abc import Iterator

from tests.exposure.clusters import (
    RBAC,
    Object,
    account,
    api_server,
    granted,
    object_of,
    pod,
    rule,
    to_account,
)

_DAEMON_SETS = 8


def large(nodes: int = 500, pods: int = 15_000, bindings: int = 3_000) -> Iterator[Object]:
    """Yield the objects of a cluster with so many nodes, pods and bindings."""
    namespaces = [f"ns-{number}" for number in range(max(2, bindings // 15))]
    for number in range(nodes):
        yield object_of("Node", f"node-{number}")
    yield api_server("node-0", "--enable-admission-plugins=NodeRestriction",
                     "--authorization-mode=Node,RBAC")  # fmt: skip
    for namespace in namespaces:
        yield object_of("Namespace", namespace)
        for number in range(5):
            yield account(f"app-{number}", namespace)
    for number in range(_DAEMON_SETS):
        yield account(f"agent-{number}", "kube-system")
    for number in range(pods):
        node = f"node-{number % nodes}"
        layer = number // nodes
        if layer < _DAEMON_SETS:
            yield pod(f"agent-{number}", node, f"agent-{layer}", "kube-system", "DaemonSet")
            continue
        namespace = namespaces[number % len(namespaces)]
        secrets = (f"app-{number % 7}", f"shared-{number % 3}")
        yield pod(f"app-{number}", node, f"app-{number % 5}", namespace, "ReplicaSet", secrets)
    for number in range(bindings):
        yield from _binding(number, namespaces[number % len(namespaces)])


def _binding(number: int, namespace: str) -> list[Object]:
    name, subject = f"r{number}", to_account(f"app-{number // 15 % 5}", namespace)
    match number % 15:
        case 0:
            return granted(
                subject, rule([""], ["secrets"], ["get"]), namespace=namespace, name=name
            )
        case 1:
            return granted(
                subject, rule([""], ["pods/exec"], ["create"]), namespace=namespace, name=name
            )
        case 2 if number % 150 == 2:
            # A few operators reach far.
            return granted(subject, rule([RBAC], ["clusterroles"], ["*"]), name=name)
        case 3:
            return granted(subject, rule(["apps"], ["deployments"], ["patch"], ["x"]),
                           namespace=namespace, name=name)  # fmt: skip
        case 4 if number < 15 * _DAEMON_SETS:
            agent = to_account(f"agent-{number // 15}", "kube-system")
            return granted(agent, rule([""], ["nodes/status", "nodes"], ["patch"]), name=name)
    return granted(
        subject, rule([""], ["configmaps", "pods"], ["get", "list", "watch"]),
        namespace=namespace, name=name,
    )  # fmt: skip
