"""Reviews that differ from honest ones in a single field, and what policies and rules say."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from noderestrict import admission
from noderestrict.policy.cel import MOST_ENTRIES, MOST_INNER, MOST_KEYS, Form
from noderestrict.policy.decision import Denied, Question
from noderestrict.policy.listers import Listers
from noderestrict.policy.rules import review as review_rules
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULES
from noderestrict.render.policies import Options, policies
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.policies import evaluate
from noderestrict.replay.policies.documents import convert
from noderestrict.replay.policies.evaluate import Judgement, Policies
from noderestrict.replay.reviews import circumstances
from noderestrict.replay.state import load_state
from tests.builders import LISTERS, Object, claim, mirror_pod, node, obj, review

CONFORMANCE = Path(__file__).parents[1] / "conformance"
UNCOVERED = frozenset(rule.id for rule in RULES if not isinstance(rule.cel, Form))


def conformance(file: str, settings: Settings) -> Iterator[tuple[Case, Settings, Listers]]:
    """Yield the cases of a file with what they are judged with.

    Args:
        file: below the folder of the suites.
        settings: for cases without their own.
    """
    path = CONFORMANCE / file
    listers = load_state([str(path.parent / "state.json")])
    for case in cases(str(path)):
        assert isinstance(case, Case)
        yield (case, *circumstances(case, settings, listers))


def refusing_rules(body: bytes, settings: Settings, listers: Listers = LISTERS) -> list[str]:
    """Return the ids of all rules with a CEL form that refuse a review, in their order.

    What no rule can judge, and who is no node by name, is refused before all others.
    """
    request = admission.decode(body)
    skipped = set(UNCOVERED)
    found: list[str] = []
    while True:
        decision = admission.evaluate(request, settings, listers, skipped)
        if isinstance(decision, Question):
            decision = decision.otherwise
        if not isinstance(decision, Denied):
            return found
        found.append(decision.rule)
        if decision.rule in (review_rules.NODE_NAME.id, review_rules.OBJECT.id):
            return found
        skipped.add(decision.rule)


_compiled: dict[str, Policies] = {}
_judged: dict[tuple[str, bytes], Judgement] = {}


def judged(body: bytes, settings: Settings) -> Judgement:
    """Return what the policies say of a review; several tests ask."""
    key = repr((settings.release, settings.extra, sorted(settings.features.items())))
    if key not in _compiled:
        _compiled[key] = Policies(convert(policies(Options(settings))))
    if (key, body) not in _judged:
        _judged[key, body] = judge_with_nulls(_compiled[key], body)
    return _judged[key, body]


def judge_with_nulls(compiled: Policies, body: bytes) -> Judgement:
    """Return what policies say of a review in which nulls stay.

    An API server has null for some empty lists, and leaves out everything else that is null.
    """
    with patch.object(evaluate, "_evened", _with_texts):
        return compiled.judge(json.loads(body)["request"])


def variables_of(body: bytes) -> Mapping[str, Any]:
    """Return what expressions read of a review: ``request``, ``object`` and ``oldObject``."""
    with patch.object(evaluate, "_evened", _with_texts):
        return evaluate._Review(json.loads(body)["request"]).variables


def _with_texts(value: Any) -> Any:
    """Return an object in which no label or annotation is null, as in every API server."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if isinstance(metadata, dict):
        for field in ("labels", "annotations"):
            if isinstance(held := metadata.get(field), dict):
                metadata[field] = {key: "" if one is None else one for key, one in held.items()}
    return value


def refusing_policies(judgement: Judgement) -> list[str]:
    """Return the rules that objections name."""
    assert not judgement.unknown
    return [one.message.partition(":")[0] for one in judgement.objections]


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))


def _changed(value: Any, path: tuple[str | int, ...], change: Any) -> Any:
    """Return a value with another one at a path; "gone" takes the field away.

    What is not on the path is shared.
    """
    step, *rest = path
    result = value.copy()
    if rest:
        result[step] = _changed(value[step], tuple(rest), change)
    elif change == "gone":
        del result[step]
    else:
        result[step] = change
    return result


def _changes(current: Any) -> Iterator[Any]:
    yield "gone"
    yield None
    if isinstance(current, str):
        yield from ("", "other")
    elif isinstance(current, bool):
        yield not current
    elif isinstance(current, dict):
        yield {}
    elif isinstance(current, list):
        yield []
        if current:
            yield current[::-1]
            yield current * 2


def variants(body: bytes) -> Iterator[bytes]:
    """Yield a review, and with each field of its objects and of the request gone or changed."""
    yield body
    document = json.loads(body)
    request = document["request"]
    for field in ("name", "namespace", "subResource"):
        for change in ("gone", "", "other"):
            if change != "gone" or field in request:
                yield json.dumps(_changed(document, ("request", field), change)).encode()
    fields = [one for one in ("object", "oldObject") if request.get(one) is not None]
    sets = [[one] for one in fields] + ([fields] if len(fields) > 1 else [])
    for chosen in sets:
        for path in _paths(request[chosen[0]]):
            if path[0] in ("apiVersion", "kind"):
                continue
            for change in _changes(_at(request[chosen[0]], path)):
                changed = document
                for field in chosen:
                    if not _has(request[field], path):
                        break
                    changed = _changed(changed, ("request", field, *path), change)
                else:
                    yield json.dumps(changed).encode()


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _has(value: Any, path: tuple[str | int, ...]) -> bool:
    try:
        _at(value, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


OWNERS = [
    {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1", "controller": True},
    {"apiVersion": "v1", "kind": "Y", "name": "y", "uid": "2", "blockOwnerDeletion": True},
]
#: A Node in which every field that a rule reads is set.
NODE = node(
    {
        "kubernetes.io/hostname": "n1",
        "node-restriction.kubernetes.io/a": "b",
        "x.kubelet.kubernetes.io/c": "d",
        "example.k8s.io/e": "f",
        "k8s.io": "g",
        "tier": "h",
    },
    metadata={
        "annotations": {
            "csi.volume.kubernetes.io/nodeid": "{}",
            "example.com/a": "b",
            "other.example.com/c": "d",
        },
        "finalizers": ["example.com/a"],
        "ownerReferences": OWNERS,
    },
    spec={
        "configSource": {
            "configMap": {
                "namespace": "a",
                "name": "b",
                "uid": "c",
                "resourceVersion": "1",
                "kubeletConfigKey": "k",
            }
        },
        "taints": [
            {"key": "a", "value": "b", "effect": "NoSchedule"},
            {"key": "c", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
        ],
        "unschedulable": True,
        "podCIDR": "10.1.0.0/24",
        "podCIDRs": ["10.1.0.0/24", "fd00::/64"],
        "providerID": "a://1",
    },
)
NEW_NODE = node(
    {"kubernetes.io/hostname": "n1", "a": "b", "topology.kubernetes.io/zone": "z"},
    metadata={"annotations": {"csi.volume.kubernetes.io/nodeid": "{}"}},
    spec={"taints": [{"key": "a", "effect": "NoSchedule"}], "providerID": "a://1"},
)
_SECRET_REFS = ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")
_PLAIN = (
    "awsElasticBlockStore", "azureDisk", "downwardAPI", "emptyDir", "fc", "flocker",
    "gcePersistentDisk", "gitRepo", "hostPath", "image", "nfs", "photonPersistentDisk",
    "portworxVolume", "quobyte", "vsphereVolume",
)  # fmt: skip
_CONTAINER = {
    "name": "c",
    "env": [
        {"name": "A", "value": "b"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {
            "name": "C",
            "valueFrom": {
                "secretKeyRef": {"name": "", "key": "k"},
                "configMapKeyRef": {"name": ""},
            },
        },
    ],
    "envFrom": [{"prefix": "P", "secretRef": {"name": ""}, "configMapRef": {"name": ""}}],
}
#: A mirror pod in which everything that could name another object is there and names none.
RICH_POD = mirror_pod(
    serviceAccountName="",
    serviceAccount="",
    imagePullSecrets=[{"name": ""}],
    containers=[_CONTAINER],
    initContainers=[_CONTAINER],
    ephemeralContainers=[_CONTAINER],
    resourceClaims=[],
    volumes=[
        *({"name": kind.lower(), kind: {}} for kind in _PLAIN),
        *({"name": kind.lower(), kind: {"secretRef": {"name": ""}}} for kind in _SECRET_REFS),
        {"name": "p", "projected": {"sources": [{"downwardAPI": {"items": []}}]}},
    ],
)
_IN_CONTAINERS: tuple[Object, ...] = (
    {"env": [{"name": "A"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s"}}}]},
    {"env": [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "m"}}}]},
    {"envFrom": [{}, {"secretRef": {"name": "s"}}]},
    {"envFrom": [{"configMapRef": {"name": "m"}}]},
)
_PROJECTIONS: tuple[Object, ...] = (
    {"secret": {"name": "s"}},
    {"secret": {}},
    {"configMap": {"name": "m"}},
    {"configMap": {}},
    {"serviceAccountToken": {"path": "p"}},
    {"clusterTrustBundle": {"path": "p"}},
    {"podCertificate": {"signerName": "s"}},
    {"secret": {"name": None}},
    {"configMap": {"name": None}},
    {"clusterTrustBundle": None, "downwardAPI": {}},
    {"downwardAPI": {}, "secret": {"name": "s"}},
    {"ofTomorrow": {}},
    {},
)
_SOURCES: tuple[Object, ...] = (
    {"secret": {"secretName": "s"}},
    {"secret": {}},
    {"configMap": {"name": "m"}},
    {"configMap": {}},
    {"azureFile": {"secretName": "s"}},
    {"azureFile": {"shareName": "s"}},
    {"csi": {"driver": "d"}},
    {"csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}},
    {"csi": {"driver": "d", "nodePublishSecretRef": {}}},
    {"csi": {"driver": "d", "nodePublishSecretRef": {"name": None}}},
    {"secret": {"secretName": None}},
    {"configMap": {"name": None}},
    {"azureFile": {"secretName": None}},
    {"glusterfs": {"endpoints": "e"}},
    {"persistentVolumeClaim": {"claimName": "c"}},
    {"ephemeral": {"volumeClaimTemplate": {}}},
    *({kind: {"secretRef": {"name": "s"}}} for kind in _SECRET_REFS),
    *({"projected": {"sources": [{"downwardAPI": {}}, one]}} for one in _PROJECTIONS),
    {"projected": {"sources": None}},
    {"projected": {}},
    {"ofTomorrow": {}},
    {"emptyDir": None},
    {},
)
#: Specs of mirror pods that name something, or might.
REFERENCES: tuple[Object, ...] = (
    {"serviceAccountName": "a"},
    {"serviceAccount": "a"},
    {"imagePullSecrets": [{}, {"name": "a"}]},
    *(
        {field: [{"name": "c"}, {"name": "d", **refers}]}
        for field in ("containers", "initContainers", "ephemeralContainers")
        for refers in _IN_CONTAINERS
    ),
    {"resourceClaims": [{"name": "a", "resourceClaimName": "b"}]},
    *({"volumes": [{"name": "e", "emptyDir": {}}, {"name": "v", **one}]} for one in _SOURCES),
)


def _pod(**status: Any) -> Object:
    return obj(
        "pods",
        metadata={
            "name": "p1",
            "namespace": "ns",
            "labels": {"app": "web", "node-restriction": ""},
        },
        spec={"nodeName": "n1", "containers": [{"name": "c"}]},
        status={"phase": "Running", **status},
    )


def _relabelled(value: Object) -> Object:
    return {**value, "metadata": {**value["metadata"], "labels": {"other": "label"}}}


_CLAIMED = _pod(
    resourceClaimStatuses=[{"name": "a", "resourceClaimName": "b"}, {"name": "c"}],
    extendedResourceClaimStatus={
        "resourceClaimName": "x",
        "requestMappings": [
            {"containerName": "c", "resourceName": "r", "requestName": "q"},
            {"containerName": "d", "resourceName": "r", "requestName": "q"},
        ],
    },
    nodeAllocatableResourceClaimStatuses=[
        {
            "resourceClaimName": "n",
            "containers": ["c"],
            "mapping": [{"name": "cpu", "quantity": "1"}],
            "overhead": [{"name": "cpu", "perPod": "1", "perContainer": "2"}],
        }
    ],
)
_PVC = claim(
    phase="Bound",
    accessModes=["ReadWriteOnce"],
    capacity={"storage": "1Gi"},
    conditions=[{"type": "Resizing", "status": "True"}],
    allocatedResources={"storage": "2Gi"},
    allocatedResourceStatuses={"storage": "NodeResizePending"},
    currentVolumeAttributesClassName="",
    modifyVolumeStatus={},
)
_PVC["metadata"] |= {
    "labels": {"a": "b"},
    "annotations": {"c": "d"},
    "finalizers": ["kubernetes.io/pvc-protection"],
    "deletionGracePeriodSeconds": 0,
    "managedFields": [{"manager": "m"}],
}
_PVC["spec"] |= {
    "accessModes": ["ReadWriteOnce"],
    "storageClassName": "",
    "volumeMode": "Filesystem",
    "selector": {"matchLabels": {"a": "b"}},
}
_PVC["spec"]["resources"]["limits"] = {"storage": "4Gi"}
_CSI = obj(
    "csinodes",
    metadata={"name": "n1"},
    spec={"drivers": [{"name": "a", "nodeID": "b", "topologyKeys": ["c"]}]},
)


def _update(resource: str, value: Object, sub: str = "", name: str = "n1", at: str = "") -> bytes:
    return review(resource, "UPDATE", sub=sub, name=name, namespace=at, new=value, old=value)


def _slice(version: str, operation: str) -> bytes:
    fields = {"nodeName": "n1"} if version == "v1alpha2" else {"spec": {"nodeName": "n1"}}
    value = {**obj("resourceslices", metadata={"name": "s"}, **fields)}
    value["apiVersion"] = f"resource.k8s.io/{version}"
    document = json.loads(
        review(
            "resourceslices",
            operation,
            name="s",
            new=value if operation != "DELETE" else None,
            old=value if operation != "CREATE" else None,
        )
    )
    document["request"]["resource"]["version"] = version
    return json.dumps(document).encode()


def _request(operation: str, sub: str = "", **more: Any) -> bytes:
    value = obj("podcertificaterequests", metadata={"name": "r", "namespace": "ns"})
    new, old = (
        (None if operation == "DELETE" else value),
        (None if operation == "CREATE" else value),
    )
    return review(
        "podcertificaterequests", operation, sub=sub, name="r", namespace="ns", new=new, old=old
    )


#: Honest reviews, each with all fields that rules read.
BASES: tuple[bytes, ...] = (
    review("pods", "CREATE", name="static", namespace="ns", new=mirror_pod()),
    review("pods", "CREATE", name="static", namespace="ns", new=RICH_POD),
    review("pods", "DELETE", name="p1", namespace="ns", old=_pod()),
    _update("pods", _CLAIMED, "status", "p1", "ns"),
    _update("pods", _pod(), "status", "p1", "ns"),
    review("nodes", "CREATE", name="n1", new=NEW_NODE),
    _update("nodes", NODE),
    _update("nodes", NODE, "status"),
    review("nodes", "DELETE", name="n1", old=NODE),
    *(
        review(
            resource,
            operation,
            name="n1",
            namespace=namespace,
            new=value if operation != "DELETE" else None,
            old=value if operation != "CREATE" else None,
        )
        for resource, namespace in (("leases", "kube-node-lease"), ("csinodes", ""))
        for value in [obj(resource, metadata={"name": "n1", "namespace": namespace})]
        for operation in ("CREATE", "UPDATE", "DELETE")
    ),
    _update("csinodes", _CSI, "status"),
    _update("persistentvolumeclaims", _PVC, "status", "data", "ns"),
    *(
        _slice(version, operation)
        for version in ("v1", "v1beta1", "v1alpha3", "v1alpha2")
        for operation in ("CREATE", "UPDATE", "DELETE")
    ),
    _request("CREATE"),
)
_CONFIGS: tuple[Object | None, ...] = (None, {}, {"configMap": {}})
#: Reviews that rules refuse whatever is in them, or that need no variants.
OTHERS: tuple[bytes, ...] = (
    *(
        review("pods", "CREATE", name="static", namespace="ns", new=pod)
        for owner in (
            {**OWNERS[0], "kind": "Node", "name": "n1", "blockOwnerDeletion": True},
            {**OWNERS[0], "kind": "Node", "name": "n1", "blockOwnerDeletion": False},
        )
        for pod in [mirror_pod()]
        if pod["metadata"].update(ownerReferences=[owner]) is None
    ),
    # What other rules refuse already.
    *(
        review("pods", operation, sub=sub, name="p1", namespace="ns",
               new=mirror_pod(volumes=[{"name": "v", "secret": {"secretName": "s"}}]),
               old=mirror_pod() if operation == "UPDATE" else None)
        for operation, sub in (("UPDATE", ""), ("CREATE", "binding"), ("UPDATE", "status"))
    ),
    review("pods", "UPDATE", name="p1", namespace="ns", new=_CLAIMED, old=_relabelled(_pod())),
    review("persistentvolumeclaims", "UPDATE", name="data", namespace="ns", new=_PVC,
           old=_relabelled(_PVC)),
    review("nodes", "CREATE", name="n1", new=node(spec={"configSource": None})),
    *(
        review("nodes", "UPDATE", name="n1", new=node(spec={"configSource": {}}),
               old=node(spec={"configSource": old}))
        for old in _CONFIGS
    ),
    *(
        review("pods", "UPDATE", sub="status", name="p1", namespace="ns", new=new, old=old)
        for claimed in [_pod(extendedResourceClaimStatus={})]
        for old, new in ((claimed, _pod()), (_pod(), claimed))
    ),
    *(
        review("nodes", "UPDATE", name=name, user=f"system:node:{name}",
               new=node(new, metadata={"annotations": new}),
               old=node(old, metadata={"annotations": old}))
        for name in ("n1", "m", "x")
        for key in ("example.k8s.io/z", "a.k8s.io/b", "k8s.io/z", "example.com/z")
        for new, old in (({key: "v"}, {}), ({}, {key: "v"}), ({key: "v"}, {key: "w"}))
    ),
    *(
        review("pods", "CREATE", name="static", namespace="ns", new=mirror_pod(**spec))
        for spec in REFERENCES
    ),
    *(
        review(resource, operation, sub=sub, name="x", namespace="ns", new=value, old=value)
        for resource in ("pods", "persistentvolumeclaims", "podcertificaterequests", "nodes")
        for operation in ("CREATE", "UPDATE", "DELETE")
        for sub in ("", "status", "other")
        for value in [obj(resource, metadata={"name": "x"})]
        if (resource, operation, sub) != ("pods", "DELETE", "")
        and (resource, operation) != ("nodes", "CREATE")
    ),
    *(
        review(resource, operation, sub="status", name=name, namespace=namespace,
               new=value if operation == "CREATE" else None,
               old=value if operation == "DELETE" else None)
        for resource, name, namespace, value in (
            ("pods", "p1", "ns", _CLAIMED),
            ("persistentvolumeclaims", "data", "ns", _PVC),
            ("csinodes", "n1", "", _CSI),
            ("csinodes", "n1", "", obj("csinodes", metadata={"name": "n1"})),
        )
        for operation in ("CREATE", "DELETE")
    ),
    review("pods", "CREATE", sub="eviction", name="p1", namespace="ns",
           new=obj("pods", eviction=True, metadata={"name": "p1"})),
    review("pods", "CREATE", sub="binding", name="p1", namespace="ns", new=_pod()),
)  # fmt: skip
USERS: tuple[Mapping[str, Any], ...] = (
    {"username": "system:node:n1", "groups": ["a", "system:nodes"]},
    {"username": "system:node:", "groups": ["system:nodes"]},
    {"username": "system:node:n1", "groups": []},
    {"username": "system:node:n1", "groups": ["system:masters"]},
    {"username": "system:node:n1"},
    {"username": "system:nodes:n1", "groups": ["system:nodes"]},
    {"username": "alice", "groups": ["system:nodes"]},
    {"groups": ["system:nodes"]},
    {},
)


def with_user(body: bytes, user: Mapping[str, Any]) -> bytes:
    """Return a review of somebody else."""
    document = json.loads(body)
    document["request"]["userInfo"] = user
    return json.dumps(document).encode()


def is_of_a_node(body: bytes) -> bool:
    """Tell whether a node user sent a review."""
    return admission.decode(body).node is not None


def made_reviews(bases: Sequence[bytes] = BASES) -> Iterator[bytes]:
    """Yield the reviews that are made here, each once.

    Args:
        bases: in which fields differ.
    """
    seen = set()
    for body in (
        *(one for base in bases for one in variants(base)),
        *OTHERS,
        *(with_user(base, user) for base in BASES for user in USERS),
    ):
        if body not in seen:
            seen.add(body)
            yield body


def _many(count: int, entry: Any) -> list[Any]:
    return [entry] * count


def _labelled(prefix: str, before: int, after: int) -> bytes:
    old, new = ({f"{prefix}{one}": "" for one in range(count)} for count in (before, after))
    return review("nodes", "UPDATE", name="n1", new=node(new), old=node(old))


def annotated(by: int) -> Iterator[bytes]:
    """Yield such reviews for the strict rule on annotations."""
    many = {f"example.com/{one}": "" for one in range(MOST_KEYS + by)}
    few, more = node(), node(metadata={"annotations": many})
    for old, new in ((few, more), (more, few)):
        yield review("nodes", "UPDATE", name="n1", new=new, old=old)


def bounded(by: int) -> Iterator[bytes]:
    """Yield honest reviews with so many entries over what an expression visits.

    Args:
        by: how many; 0 for as many as it visits.
    """
    entries, inner, keys = MOST_ENTRIES + by, MOST_INNER + by, MOST_KEYS + by
    for spec in (
        {"imagePullSecrets": _many(entries, {"name": ""})},
        {"containers": _many(inner, {"name": "c"})},
        {"containers": [{"name": "c", "env": _many(entries, {"name": "A"})}]},
        {"containers": [{"name": "c", "envFrom": _many(entries, {"prefix": "A"})}]},
        {"volumes": _many(entries, {"name": "v", "emptyDir": {}})},
        {"volumes": [{"name": "v", "projected": {"sources": _many(inner, {"downwardAPI": {}})}}]},
    ):
        yield review("pods", "CREATE", name="static", namespace="ns", new=mirror_pod(**spec))
    yield _labelled("x.node.kubernetes.io/", 0, keys)
    yield _labelled("x.node.kubernetes.io/", keys, 0)


def needs_a_lookup(body: bytes) -> bool:
    """Tell whether a rule must look up what every API server sends: the pod to delete."""
    request = json.loads(body)["request"]
    old = request.get("oldObject") or {}
    where = (request["resource"]["resource"], request["operation"], request.get("subResource", ""))
    return where == ("pods", "DELETE", "") and old.get("spec") is None
