"""Reviews of agents, and their verdicts."""

import json
from typing import Any

from noderestrict import admission
from noderestrict.agents.agents import Agents
from noderestrict.agents.load import parse
from noderestrict.policy.decision import Allowed, Decision, Denied
from noderestrict.policy.listers import Listers, MemoryListers
from noderestrict.policy.records import NodeRecord, PodRecord
from noderestrict.policy.settings import Settings

Object = dict[str, Any]

ACCOUNT = "system:serviceaccount:storage:driver"
EXTRA = "authentication.kubernetes.io/"
LISTERS = MemoryListers(
    [
        NodeRecord("n1", "n1-uid"),
        NodeRecord("n2", "n2-uid"),
        PodRecord("storage", "driver-1", "driver-1-uid", "n1", "driver"),
        PodRecord("storage", "driver-2", "driver-2-uid", "n2", "driver"),
        PodRecord("storage", "pending", "pending-uid", "", "driver"),
        PodRecord("ns", "p1", "p1-uid", "n1"),
        PodRecord("ns", "p2", "p2-uid", "n2"),
    ]
)


def agents(text: str) -> Agents:
    return Agents(parse(text.encode(), "agents.yaml").agents)


def policy(entry: str, **fields: str) -> Agents:
    """Return an agent of ns storage with one entry for writes, in YAML's flow style."""
    lines = {
        "name": "driver",
        "users": "[{serviceAccount: storage/driver}]",
        "write": f"[{entry}]",
        **fields,
    }
    return agents("agents:\n- " + "\n  ".join(f"{key}: {value}" for key, value in lines.items()))


def reading(entry: str, **fields: str) -> Agents:
    """Return an agent with one entry for reads, likewise."""
    return policy("", write="[]", read=f"[{entry}]", **fields)


def bound(node: str = "n1", number: int = 1) -> Object:
    """Return what an API server says of the token of a pod of the DaemonSet."""
    return {
        f"{EXTRA}credential-id": ["JTI=1"],
        f"{EXTRA}node-name": [node],
        f"{EXTRA}node-uid": [f"{node}-uid"],
        f"{EXTRA}pod-name": [f"driver-{number}"],
        f"{EXTRA}pod-uid": [f"driver-{number}-uid"],
    }


OF_N1 = bound()


def obj(name: str = "", kind: str = "Thing", **fields: Any) -> Object:
    """Return an object; ``metadata`` adds to its name."""
    metadata = {**({"name": name} if name else {}), **fields.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


def node(name: str, **metadata: Any) -> Object:
    return obj(name, "Node", metadata=metadata, spec={}, status={})


def pod(name: str, on: str, **metadata: Any) -> Object:
    return obj(name, "Pod", metadata={"namespace": "ns", **metadata}, spec={"nodeName": on})


def review(
    resource: str,
    operation: str,
    *,
    name: str = "",
    namespace: str = "",
    group: str = "",
    new: Object | None = None,
    old: Object | None = None,
    user: str = ACCOUNT,
    uid: str = "driver-uid",
    groups: tuple[str, ...] = ("system:serviceaccounts", "system:authenticated"),
    extra: Object | None = OF_N1,
) -> bytes:
    """Return an AdmissionReview as an API server writes it."""
    plural, _, sub_resource = resource.partition("/")
    kind = {"group": group, "version": "v1", "kind": (new or old or obj())["kind"]}
    request = {
        "uid": "review-uid",
        "kind": kind,
        "resource": {"group": group, "version": "v1", "resource": plural},
        **({"subResource": sub_resource} if sub_resource else {}),
        "requestKind": kind,
        "requestResource": {"group": group, "version": "v1", "resource": plural},
        **({"name": name} if name else {}),
        **({"namespace": namespace} if namespace else {}),
        "operation": operation,
        "userInfo": {
            "username": user,
            **({"uid": uid} if uid else {}),
            "groups": list(groups),
            **({"extra": extra} if extra else {}),
        },
        "object": new,
        "oldObject": old,
        "dryRun": False,
    }
    whole = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(whole, separators=(",", ":")).encode()


def judge(
    held: Agents,
    body: bytes,
    listers: Listers = LISTERS,
    skipped: frozenset[str] = frozenset(),
) -> Decision:
    request = admission.decode(body, held)
    return admission.evaluate(request, Settings.for_version(), listers, skipped)


def assert_allowed(decision: Decision) -> None:
    assert isinstance(decision, Allowed), decision


def assert_denied(decision: Decision, rule: str, *parts: str, code: int = 403) -> None:
    assert isinstance(decision, Denied), decision
    assert (decision.rule, decision.code) == (f"agents/driver/{rule}", code), decision
    for part in parts:
        assert part in decision.explanation, decision
