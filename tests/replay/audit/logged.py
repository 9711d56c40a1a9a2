"""Audit events for tests, and what replay says about them."""

import json
from collections.abc import Iterable
from typing import Any

from noderestrict.policy.extra import Extra
from noderestrict.policy.features import OFFLINE_MINOR
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import Record
from noderestrict.policy.settings import Settings
from noderestrict.replay.audit.log import AuditLog
from noderestrict.replay.results import NotJudged, Result, Undecided
from noderestrict.replay.sources import Document, Unreadable

Found = Result | Undecided | NotJudged | Unreadable
USER = {"username": "system:node:n1", "groups": ["system:nodes", "system:authenticated"]}
ADMIN = {"username": "admin", "groups": ["system:masters"]}


def event(verb: str, resource: str, name: str, **more: Any) -> dict[str, Any]:
    reference = {"resource": resource, "name": name, "apiVersion": "v1", **more.pop("ref", {})}
    return {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": f"{verb}-{name}",
        "stage": "ResponseComplete",
        "verb": verb,
        "user": USER,
        "userAgent": "kubelet/v1.36",
        "objectRef": reference,
        "responseStatus": {"code": 200},
        **more,
    }


def node(name: str = "n1", **labels: str) -> dict[str, Any]:
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}


def pod(name: str, node_name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": name}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata,
            "spec": {"nodeName": node_name, "containers": []}}  # fmt: skip


def stored(kind: dict[str, Any], version: int, uid: str = "u1") -> dict[str, Any]:
    """Return an object as the API server answers with it."""
    metadata = {**kind["metadata"], "uid": uid, "resourceVersion": str(version)}
    return {**kind, "metadata": metadata}


def at(second: int, one: dict[str, Any]) -> dict[str, Any]:
    """Return an event of a time."""
    return {
        **one,
        "requestReceivedTimestamp": f"2025-01-01T00:00:{second:02}.000000Z",
        "stageTimestamp": f"2025-01-01T00:00:{second:02}.010000Z",
    }


def documents(name: str, logged: Iterable[Any]) -> list[Document]:
    return [Document(name, at, json.dumps(one).encode()) for at, one in enumerate(logged, 1)]


def judged(
    *logged: Any, extra: Extra | None = None, state: Iterable[Record] = (), minor: int | None = None
) -> list[Found]:
    """Return what replay says about the events of one file."""
    return merged(logged, extra=extra, state=state, minor=minor)


def merged(
    *files: Iterable[Any],
    extra: Extra | None = None,
    state: Iterable[Record] = (),
    minor: int | None = None,
) -> list[Found]:
    """Return what replay says about the events of several files."""
    settings = Settings.for_version(minor or OFFLINE_MINOR, extra=extra)
    log = AuditLog(settings, MemoryListers(state))
    return list(log.results(*(documents(f"cp{at}.log", one) for at, one in enumerate(files, 1))))


def row(found: list[Found]) -> Result:
    """Return the only result, which is a verdict."""
    (one,) = found
    assert isinstance(one, Result), one
    return one


def undecided(found: list[Found]) -> Undecided:
    """Return the only result, which misses something."""
    (one,) = found
    assert isinstance(one, Undecided), one
    return one


def verdicts(found: Iterable[Found]) -> list[str]:
    """Return the results in short: the rule of a denial, or what else became of a write."""
    return [
        "undecided" if isinstance(one, Undecided)
        else one.why if isinstance(one, NotJudged)
        else one.problem if isinstance(one, Unreadable)
        else "allowed" if one.allowed
        else one.rule
        for one in found
    ]  # fmt: skip
