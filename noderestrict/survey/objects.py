"""The objects that a survey reads, from a cluster or from files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from noderestrict.api import appsv1, rbacv1

#: What to read of an object, by plural resource.
STRUCTS: Mapping[str, type[msgspec.Struct]] = {
    "daemonsets": appsv1.DaemonSet,
    "pods": appsv1.HostedPod,
    "clusterroles": rbacv1.Role,
    "clusterrolebindings": rbacv1.RoleBinding,
    "roles": rbacv1.Role,
    "rolebindings": rbacv1.RoleBinding,
}
#: What stays hidden where a resource cannot be read.
HIDDEN = {
    "daemonsets": "DaemonSets that have no pods yet",
    "pods": "on which nodes the accounts are, pods that a DaemonSet started earlier with another "
    "account, and static pods",
    "clusterroles": "what most accounts are granted",
    "clusterrolebindings": "what accounts are granted in all namespaces",
    "roles": "part of what accounts are granted in single namespaces",
    "rolebindings": "what accounts are granted in single namespaces",
}


class NotSeen(msgspec.Struct, frozen=True, rename="camel"):
    """Something that a survey could not read.

    Attributes:
        what: plural resource.
        why: it could not.
        hidden: what may be missing in the findings therefore.
    """

    what: str
    why: str
    hidden: str = ""


@dataclass(slots=True)
class Objects:
    """What was read.

    Attributes:
        by_resource: objects by plural resource; empty for what could not be read.
        not_seen: what could not be read.
        minor: of the API server, 1.``minor``; None if it is not known.
    """

    by_resource: dict[str, list[Any]] = field(
        default_factory=lambda: {plural: [] for plural in STRUCTS}
    )
    not_seen: list[NotSeen] = field(default_factory=list)
    minor: int | None = None
