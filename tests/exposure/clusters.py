"""Random small clusters, as kubectl writes them."""

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from noderestrict.exposure.world import STRUCTS, Reader, World
from tests.exposure.closure import BOOTSTRAP_FLAG, BOOTSTRAP_GROUP

Object = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
NAMESPACES = ("a", "b", "kube-system")
NODES = ("n1", "n2", "n3")
ACCOUNTS = ("default", "s", "t")
PLURALS = {
    "Node": "nodes", "Namespace": "namespaces", "Pod": "pods", "ServiceAccount": "serviceaccounts",
    "Secret": "secrets", "PersistentVolume": "persistentvolumes", "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings", "Role": "roles", "RoleBinding": "rolebindings",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}  # fmt: skip


def world_of(objects: Iterable[Object]) -> World:
    """Return a world of objects, as reading them does."""
    reader = Reader()
    for value in objects:
        plural = PLURALS[value["kind"]]
        reader.add(plural, msgspec.convert(value, STRUCTS[plural]))
    reader.resources.add("serviceaccounts")
    return reader.finish()


def object_of(kind: str, name: str, namespace: str = "", **fields: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    metadata.update(fields.pop("metadata", {}))
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


def sent(value: Object) -> Object:
    """Return an object as an API server takes it."""
    version = f"{RBAC}/v1" if value["kind"].endswith(("Role", "RoleBinding")) else None
    return {**value, "apiVersion": version or value["apiVersion"]}


def pod(
    name: str, node: str, account: str = "default", namespace: str = "a", owner: str = "",
    secrets: Iterable[str] = (), annotations: dict[str, str] | None = None, **spec: Any,
) -> Object:  # fmt: skip
    metadata: Object = {"annotations": annotations or {}}
    if owner:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": owner, "name": "o-1", "uid": "u", "controller": True}
        ]
    volumes = [{"name": f"v{one}", "secret": {"secretName": one}} for one in secrets]
    return object_of(
        "Pod", name, namespace, metadata=metadata,
        spec={
            "nodeName": node, "serviceAccountName": account, "volumes": volumes,
            "containers": [{"name": "c"}], **spec,
        },
    )  # fmt: skip


def api_server(node: str, *flags: str) -> Object:
    """Return the static pod of an API server."""
    return pod(
        f"kube-apiserver-{node}", node, "", "kube-system",
        annotations={"kubernetes.io/config.mirror": "0"},
        containers=[{"name": "kube-apiserver", "command": ["kube-apiserver", *flags]}],
    )  # fmt: skip


def account(name: str, namespace: str = "a", **fields: Any) -> Object:
    return object_of("ServiceAccount", name, namespace, **fields)


def token(name: str, owner: str, namespace: str = "a") -> Object:
    """Return a Secret with a token of an account."""
    annotations = {"kubernetes.io/service-account.name": owner}
    return object_of(
        "Secret", name, namespace, metadata={"annotations": annotations},
        type="kubernetes.io/service-account-token", data={"token": "c2VjcmV0"},
    )  # fmt: skip


Rule = tuple[list[str], list[str], list[str]]


def rule(
    groups: list[str], resources: list[str], verbs: list[str], names: Iterable[str] = ()
) -> Object:
    return {
        "apiGroups": groups, "resources": resources, "verbs": verbs,
        **({"resourceNames": list(names)} if names else {}),
    }  # fmt: skip


def granted(
    subject: Object, *rules: Object, namespace: str = "", name: str = "r", of_cluster: bool = True
) -> list[Object]:
    """Return a role with rules, and its binding to a subject, in a namespace or everywhere."""
    kind = "ClusterRole" if of_cluster else "Role"
    role = object_of(kind, name, "" if of_cluster else namespace, rules=list(rules))
    binding = object_of(
        "RoleBinding" if namespace else "ClusterRoleBinding", name, namespace,
        roleRef={"apiGroup": RBAC, "kind": kind, "name": name}, subjects=[subject],
    )  # fmt: skip
    return [role, binding]


def to_account(name: str, namespace: str = "a") -> Object:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def to_group(name: str) -> Object:
    return {"kind": "Group", "name": name, "apiGroup": RBAC}


#: Groups, resources, verbs and names that rules are made of; each leads somewhere.
_CHOICES: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ("", ("secrets",), ("get", "list", "create", "patch", "update"), ("x", "y")),
    ("", ("serviceaccounts/token",), ("create",), ("s", "t")),
    ("", ("serviceaccounts",), ("impersonate", "get"), ("s", "t")),
    ("", ("pods",), ("create", "patch", "delete", "get"), ("p1", "p2")),
    ("", ("pods/exec", "pods/ephemeralcontainers"), ("create", "patch", "get"), ("p1", "p2")),
    ("", ("pods/eviction", "pods/status"), ("create", "patch"), ("p1",)),
    ("", ("nodes/proxy",), ("get", "create", "list"), ("n1", "n3")),
    ("", ("nodes", "nodes/status"), ("patch", "delete", "get"), ("n1", "n2")),
    ("", ("users", "groups"), ("impersonate",), ("alice", "system:masters")),
    ("", ("namespaces",), ("patch", "get"), ("a", "b")),
    ("apps", ("deployments",), ("create", "update", "patch", "get"), ("x",)),
    ("admissionregistration.k8s.io", ("mutatingwebhookconfigurations",),
     ("create", "patch", "get"), ("x",)),
    ("admissionregistration.k8s.io", ("validatingwebhookconfigurations",),
     ("create", "patch"), ("x",)),
    ("certificates.k8s.io", ("signers", "certificatesigningrequests/approval"),
     ("approve", "update"), ("kubernetes.io/kube-apiserver-client", "kubernetes.io/*")),
    ("certificates.k8s.io",
     ("signers", "certificatesigningrequests/approval", "certificatesigningrequests"),
     ("approve", "patch", "create"), ("kubernetes.io/kube-apiserver-client-kubelet",)),
    ("certificates.k8s.io",
     ("certificatesigningrequests", "certificatesigningrequests/nodeclient"), ("create", "get"),
     ()),
    ("", ("persistentvolumes", "pods"), ("create", "get"), ()),
    ("apps", ("replicasets/scale", "deployments/scale", "statefulsets/scale"),
     ("patch", "update", "get"), ("o", "o-1")),
    ("autoscaling", ("horizontalpodautoscalers",), ("create", "patch"), ("x",)),
    ("apiregistration.k8s.io", ("apiservices",), ("create", "patch", "delete"),
     ("v1.apps", "v1beta1.metrics.k8s.io")),
    (RBAC, ("clusterroles", "clusterrolebindings"), ("bind", "create", "get"),
     ("everything", "x")),
    ("*", ("*",), ("*",), ()),
)  # fmt: skip


def random_cluster(chance: random.Random) -> list[Object]:
    """Return a small cluster with a random set of pods, Secrets, roles and bindings."""
    objects = [object_of("Node", name) for name in NODES]
    for name in NAMESPACES:
        labels = {"pod-security.kubernetes.io/enforce": chance.choice(("baseline", "privileged"))}
        objects.append(object_of("Namespace", name, metadata={"labels": labels}))
    for namespace in NAMESPACES:
        objects += (account(name, namespace) for name in ACCOUNTS)
        objects += (object_of("Secret", name, namespace) for name in ("x", "y"))
    if chance.random() < 0.3:
        objects.append(api_server("n3", *chance.choice(((), (BOOTSTRAP_FLAG,)))))
    if chance.random() < 0.3:
        objects.append(
            object_of(
                "Secret", "bootstrap-token", "kube-system", type="bootstrap.kubernetes.io/token"
            )
        )
    for _ in range(chance.randint(0, 2)):
        space, owner = chance.choice(NAMESPACES), chance.choice(ACCOUNTS)
        objects.append(token(f"token-{owner}", owner, space))
    for number in range(chance.randint(2, 6)):
        space = chance.choice(NAMESPACES)
        objects.append(
            pod(
                f"p{number}", chance.choice(NODES), chance.choice(ACCOUNTS), space,
                chance.choice(("DaemonSet", "ReplicaSet", "StatefulSet", "")),
                chance.sample(("x", "y", "z"), chance.randint(0, 2)),
                automountServiceAccountToken=chance.choice((True, True, False, None)),
                containers=[
                    {"name": "c", "securityContext": {"privileged": chance.random() < 0.15}}
                ],
            )
        )  # fmt: skip
    objects += granted(to_group("nobody"), rule(["*"], ["*"], ["*"]), name="everything")
    objects += granted({"kind": "User", "name": "alice"}, *_rules(chance), name="alice")
    for number in range(chance.randint(1, 6)):
        namespace = chance.choice(("", *NAMESPACES))
        subject = chance.choice(
            (
                *(to_account(name, space) for name in ACCOUNTS for space in NAMESPACES),
                to_group("system:serviceaccounts:a"),
                to_group("system:authenticated"),
                to_group("system:nodes"),
                to_group("system:bootstrappers"),
                to_group(BOOTSTRAP_GROUP),
                {"kind": "User", "name": "system:node:n1"},
            )
        )
        of_cluster = not namespace or chance.random() < 0.5
        objects += granted(
            subject, *_rules(chance), namespace=namespace, name=f"r{number}", of_cluster=of_cluster
        )
    return objects


def _rules(chance: random.Random) -> list[Object]:
    found = []
    for _ in range(chance.randint(1, 2)):
        group, resources, verbs, names = chance.choice(_CHOICES)
        if group == "*" and chance.random() < 0.7:
            continue
        count = chance.randint(1, len(verbs))
        named = chance.sample(names, 1) if names and chance.random() < 0.3 else ()
        found.append(
            rule(
                [group], chance.sample(resources, chance.randint(1, len(resources))),
                chance.sample(verbs, count), named,
            )
        )  # fmt: skip
    return found
