"""What stands in managedFields changes no verdict."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import PodRecord
from noderestrict.policy.settings import Settings
from tests.poisoned import FIELDS, LEVELS, poisoned

SETTINGS = Settings.for_version()
LISTERS = MemoryListers([PodRecord("ns", "x", "u", "n1")])
META = {"namespace": "ns", "name": "x", "uid": "u"}
#: resource, subresource, kind, what a node may change, what it may not
CASES: dict[str, tuple[str, str, str, Any, Any]] = {
    "claim": (
        "persistentvolumeclaims",
        "status",
        "PersistentVolumeClaim",
        {"status": {"capacity": {"storage": "2Gi"}}},
        {"spec": {"volumeName": "other"}},
    ),
    "pod": (
        "pods",
        "status",
        "Pod",
        {"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}},
        {"spec": {"nodeName": "n1"}, "metadata": {**META, "labels": {"a": "b"}}},
    ),
    "node": (
        "nodes",
        "status",
        "Node",
        {"status": {"phase": "Running"}},
        {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}},
    ),
}


def review(case: str, fields: str, *, honest: bool) -> bytes:
    resource, sub, kind, may, may_not = CASES[case]
    name = "n1" if case == "node" else "x"
    old = {"apiVersion": "v1", "kind": kind, "metadata": {**META, "name": name}}
    if case == "pod":
        old["spec"] = {"nodeName": "n1"}
    request = {
        "uid": "1",
        "kind": {"group": "", "version": "v1", "kind": kind},
        "resource": {"group": "", "version": "v1", "resource": resource},
        "subResource": sub,
        "requestKind": {"group": "", "version": "v1", "kind": kind},
        "name": name,
        "namespace": "ns",
        "operation": "UPDATE",
        "userInfo": {"username": "system:node:n1", "groups": ["system:nodes"]},
        "object": "@new",
        "oldObject": "@old",
    }
    body = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return (
        json.dumps(body)
        .encode()
        .replace(b'"resource": {', b'"resource":{')
        .replace(b'"@new"', poisoned({**old, **(may if honest else may_not)}, fields))
        .replace(b'"@old"', poisoned(old, fields))
    )


def deeper(frames: int, call: Callable[[], Any]) -> Any:
    return deeper(frames - 1, call) if frames else call()


def judged(body: bytes) -> Any:
    decoder = admission.TypedDecoder()
    decisions = [
        # A server judges further down its stack than it decodes.
        deeper(20, partial(admission.evaluate, decode(body), SETTINGS, LISTERS))
        for decode in (admission.decode, decoder.decode, decoder.decode)
    ]
    assert decisions[0] == decisions[1] == decisions[2]
    return decisions[0]


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("case", CASES)
def test_an_honest_update_of_a_poisoned_object_passes_and_no_other(case: str, fields: str) -> None:
    assert isinstance(judged(review(case, FIELDS[fields], honest=True)), Allowed)
    refused = judged(review(case, FIELDS[fields], honest=False))
    assert isinstance(refused, Denied)
    assert refused.rule != "request/object"


@pytest.mark.parametrize("case", CASES)
def test_no_depth_lies_between_what_is_decoded_and_what_is_scanned(case: str) -> None:
    # Decoding, decoding again when it is judged, and comparing reach their limits apart.
    for depth in (300, 600, *range(900, 1005, 3), *range(1400, 1500, 9), LEVELS - 10):
        fields = '{"f:a":' * depth + "{}" + "}" * depth
        assert isinstance(judged(review(case, fields, honest=True)), Allowed), depth


@pytest.mark.parametrize("end", ["", "}", "x", "tru", "{]", '"'])
def test_a_review_that_is_no_json_is_none(end: str) -> None:
    fields = '{"f:a":' * LEVELS + end + "}" * LEVELS
    with pytest.raises(admission.ReviewError):
        admission.decode(review("claim", fields, honest=True))


def test_what_is_deep_elsewhere_is_no_review() -> None:
    body = review("claim", "{}", honest=True).replace(
        b'"ns", "name"', b'"ns", "labels": %b, "name"' % (b"[" * LEVELS + b"]" * LEVELS)
    )
    with pytest.raises(admission.ReviewError):
        admission.decode(body)


def test_the_fields_of_other_objects_are_not_cut() -> None:
    """Only metadata at the top holds managedFields; elsewhere the name may mean anything."""
    body = review("claim", FIELDS["deep"], honest=True)
    changed = body.replace(
        b'"status": {', b'"spec": {"metadata": {"managedFields": [1]}}, "status": {'
    )
    assert changed != body
    assert isinstance(judged(changed), Denied)
