"""Small clusters of random roles and bindings, and requests about them."""

import random
from collections.abc import Iterator
from typing import Any

from noderestrict.rbac.rules import Request
from noderestrict.rbac.subjects import ANONYMOUS, User, node, service_account

Object = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"
NAMESPACES = ("a", "b")
USERS = (
    User("alice", frozenset(("dev", "system:authenticated"))),
    User("bob"),
    service_account("a", "s"),
    service_account("b", "s"),
    service_account("a", "t"),
    node("n1"),
    ANONYMOUS,
)
SUBJECTS = (
    ("User", "alice"),
    ("User", "system:serviceaccount:a:s"),
    ("User", "system:node:n1"),
    ("User", "system:anonymous"),
    ("Group", "dev"),
    ("Group", "alice"),
    ("Group", "system:serviceaccounts"),
    ("Group", "system:serviceaccounts:b"),
    ("Group", "system:nodes"),
    ("Group", "system:authenticated"),
    ("Group", "system:unauthenticated"),
    ("ServiceAccount", "s"),
    ("ServiceAccount", "t"),
)
VERBS = ("get", "list", "create", "impersonate", "*")
API_GROUPS = ("", "apps", "*")
RESOURCES = ("pods", "pods/log", "pods/*", "*/log", "*", "*/*", "secrets", "scale/log")
NAMES = ("x", "y")
PATHS = ("/metrics", "/healthz*", "*", "/a/*/b", "/logs/", "/logs/**")


def world(chance: random.Random) -> tuple[list[Object], list[Object]]:
    """Return roles and bindings as the API has them."""
    roles = [
        _object("ClusterRole", f"c{number}", "", rules=_rules(chance, paths=True))
        for number in range(3)
    ]
    roles += (
        _object("Role", f"r{number}", namespace, rules=_rules(chance, paths=False))
        for number in range(2)
        for namespace in NAMESPACES
    )
    bindings = []
    for number in range(chance.randint(2, 8)):
        namespace = chance.choice(("", *NAMESPACES))
        kind = chance.choice(("ClusterRole", "Role")) if namespace else "ClusterRole"
        name = chance.choice(("c0", "c1", "c2", "gone") if kind == "ClusterRole" else ("r0", "r1"))
        bindings.append(
            _object(
                "RoleBinding" if namespace else "ClusterRoleBinding",
                f"b{number}",
                namespace,
                roleRef={"apiGroup": GROUP, "kind": kind, "name": name},
                subjects=[_subject(chance, namespace) for _ in range(chance.randint(0, 3))],
            )
        )
    return roles, bindings


def requests() -> Iterator[Request]:
    """Yield requests of every kind that the roles may speak of."""
    for verb in ("get", "create", "delete", "impersonate", "*"):
        for namespace in ("", *NAMESPACES):
            for group in ("", "apps", "batch"):
                for resource, sub in (
                    ("pods", ""), ("pods", "log"), ("pods", "exec"), ("secrets", ""),
                    ("scale", "log"), ("pods/log", ""), ("*", ""), ("nodes", "log"),
                ):  # fmt: skip
                    for name in ("", "x", "z"):
                        yield Request(verb, group, resource, sub, namespace, name)
        for path in ("/metrics", "/healthz/etcd", "/healthz", "/a/b", "/a/*/b", "/logs/", "/"):
            yield Request(verb, path=path)


def _object(kind: str, name: str, namespace: str, **fields: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, **fields}


def _some(chance: random.Random, values: tuple[str, ...], least: int = 1) -> list[str]:
    return chance.sample(values, chance.randint(least, 2))


def _rules(chance: random.Random, *, paths: bool) -> list[Object]:
    return [
        {"verbs": _some(chance, VERBS), "nonResourceURLs": _some(chance, PATHS)}
        if paths and chance.random() < 0.3
        else {
            "verbs": _some(chance, VERBS),
            "apiGroups": _some(chance, API_GROUPS),
            "resources": _some(chance, RESOURCES),
            **({"resourceNames": _some(chance, NAMES)} if chance.random() < 0.3 else {}),
        }
        for _ in range(chance.randint(1, 2))
    ]


def _subject(chance: random.Random, namespace: str) -> Object:
    kind, name = chance.choice(SUBJECTS)
    if kind == "ServiceAccount":
        # A binding in a namespace may leave it out.
        named = chance.choice(NAMESPACES if not namespace else ("", *NAMESPACES))
        return {"kind": kind, "name": name, **({"namespace": named} if named else {})}
    return {"kind": kind, "name": name, "apiGroup": GROUP}
