"""Hostile bytes: nothing but ReviewError is raised, and no refusal is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Decision, Denied
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Case, cases
from tests.builders import (
    LISTERS,
    assert_denied,
    claim,
    create_mirror,
    judge,
    mirror_pod,
    node,
    obj,
    review,
    token_request,
    update_claim,
    update_node,
)

CONFORMANCE = Path(__file__).parent.parent / "conformance"
REVIEWS = tuple(
    case.review
    for file in ("admission/generated.jsonl", "captured/captured.jsonl")
    for case in cases(str(CONFORMANCE / file))
    if isinstance(case, Case)
)
SETTINGS = Settings.for_version()
#: Refused whatever their objects hold.
HOSTILE = {
    "another node": review("nodes", "UPDATE", name="n2", new=node({"a": "b"}), old=node()),
    "another node's pod": review("pods", "DELETE", name="p2", namespace="ns", old=obj("pods")),
    "a pod's spec": review("pods", "UPDATE", name="p1", namespace="ns", new=obj("pods")),
    "another lease": review(
        "leases", "UPDATE", name="n2", namespace="kube-node-lease", new=obj("leases")
    ),
    "another CSINode": review("csinodes", "CREATE", name="n2", new=obj("csinodes")),
    "another node's status": review("nodes", "UPDATE", sub="status", name="n2", new=node()),
}
SNIPPETS = st.binary(max_size=6) | st.sampled_from(
    [
        b"null",
        b"{}",
        b"[]",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"0",
        b"1e999",
        b"\xff",
    ]
)


def answer(body: bytes) -> Decision | None:
    """Return what a server would answer with, None for a body that it refuses to read."""
    try:
        request = admission.decode(body)
    except admission.ReviewError:
        return None
    decision = admission.evaluate(request, SETTINGS, LISTERS)
    response = json.loads(admission.encode(request, decision))["response"]
    assert response["uid"] == request.uid
    assert response["allowed"] is isinstance(decision, Allowed)
    return decision


@st.composite
def edited(draw: st.DrawFn, body: bytes, start: int = 0, end: int | None = None) -> bytes:
    """Replace a few bytes of a span."""
    end = len(body) if end is None else end
    at = draw(st.integers(start, end))
    upto = min(end, at + draw(st.integers(0, 8)))
    return body[:at] + draw(SNIPPETS) + body[upto:]


def objects_span(body: bytes) -> tuple[int, int]:
    """Return where the objects' values stand; builders write them before name and namespace."""
    return body.index(b'"object": ') + len(b'"object": '), body.index(b', "oldObject"')


@given(st.data())
def test_an_edited_review_raises_nothing_but_review_error(data: st.DataObject) -> None:
    answer(data.draw(edited(data.draw(st.sampled_from(REVIEWS)))))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_bytes_around_an_envelope_raise_nothing_but_review_error(head: bytes, tail: bytes) -> None:
    envelope = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":'
    assert answer(envelope + head + tail) is None
    answer(head + envelope + b"{}}" + tail)


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_review_is_refused(name: str) -> None:
    assert isinstance(judge(HOSTILE[name]), Denied)


@given(st.sampled_from(sorted(HOSTILE)), st.data())
def test_no_bytes_in_the_object_make_a_hostile_review_pass(name: str, data: st.DataObject) -> None:
    body = HOSTILE[name]
    assert not isinstance(answer(data.draw(edited(body, *objects_span(body)))), Allowed)


@given(st.sampled_from(REVIEWS), st.data())
def test_a_part_of_a_review_is_no_review(body: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(body.rstrip()) - 1))
    assert answer(body[:cut]) is None
    assert answer(body + b" " + body[:1]) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path]
    for key, child in inner:
        found += paths(child, (*path, key)) if isinstance(child, dict | list) else [(*path, key)]
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, *rest = path
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = put(value[key], tuple(rest), new)
    return copy


SECRET_POD = json.loads(
    create_mirror(
        mirror_pod(
            containers=[{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}],
            volumes=[{"name": "v", "secret": {"secretName": "s"}}],
            serviceAccountName="sa1",
        )
    )
)


@given(st.sampled_from(paths(SECRET_POD["request"]["object"])), JSON)
def test_one_changed_value_does_not_clear_a_pod_of_three_faults(
    path: tuple[Any, ...], value: Any
) -> None:
    changed = put(SECRET_POD, ("request", "object", *path), value)
    body = json.dumps(changed).encode()
    if path in ((), ("spec",)):
        # The pod is another one then.
        answer(body)
        return
    assert not isinstance(answer(body), Allowed)


@given(st.sampled_from(REVIEWS))
def test_judging_twice_gives_the_same(body: bytes) -> None:
    assert answer(body) == answer(body)


def put_first(body: bytes, value: bytes) -> bytes:
    return body.replace(b'"metadata": {', b'"unknown": ' + value + b', "metadata": {', 1)


WHOLE: list[Callable[[], bytes]] = [
    lambda: update_claim(claim(), claim()),
    lambda: update_node(node(), node()),
    lambda: create_mirror(mirror_pod()),
    lambda: token_request("p1", "p1-uid"),
]


@pytest.mark.parametrize("make", WHOLE)
@pytest.mark.parametrize(
    "value", [b"1e999", b'"\xff"', b'{"\xff":1}', b'"\\ud800"', b"9" * 5000, b"NaN", b'"\x01"']
)
def test_a_value_that_only_a_whole_decode_sees_raises_nothing(
    make: Callable[[], bytes], value: bytes
) -> None:
    answer(put_first(make(), value))


@pytest.mark.parametrize("value", [b"1e999", b'"\xff"', b"9" * 5000])
def test_a_claim_that_cannot_be_compared_is_refused(value: bytes) -> None:
    body = put_first(update_claim(claim(), claim()), value)
    assert_denied(judge(body), "request/object", "cannot be compared")


@pytest.mark.parametrize("make", WHOLE)
def test_no_depth_of_nesting_raises_anything_else(make: Callable[[], bytes]) -> None:
    body = make()
    for depth in [1, 100, *range(850, 1010), 5000]:
        answer(put_first(body, b'{"a":' * depth + b"1" + b"}" * depth))


@pytest.mark.parametrize("field", ["kind", "userInfo", "subResource", "name", "namespace"])
def test_a_null_field_is_an_absent_one(field: str) -> None:
    document = json.loads(update_node(node(), node()))
    document["request"][field] = None
    with_null = answer(json.dumps(document).encode())
    del document["request"][field]
    assert with_null == answer(json.dumps(document).encode())


@pytest.mark.parametrize("field", ["uid", "operation", "resource"])
@pytest.mark.parametrize("how", ["null", "absent"])
def test_a_field_that_the_answer_hinges_on_must_be_there(field: str, how: str) -> None:
    document = json.loads(update_node(node(), node()))
    document["request"][field] = None
    if how == "absent":
        del document["request"][field]
    with pytest.raises(admission.ReviewError, match=field):
        admission.decode(json.dumps(document).encode())


@pytest.mark.parametrize("operation", ["create", "PATCH", "*", "CREATE ", "\u0000"])
def test_an_operation_is_one_of_four(operation: str) -> None:
    document = json.loads(update_node(node(), node()))
    document["request"]["operation"] = operation
    with pytest.raises(admission.ReviewError, match="operation"):
        admission.decode(json.dumps(document).encode())


def test_a_uid_is_echoed_as_it_is() -> None:
    uid = 'ü"\\\n</script>\U0001f512'
    document = json.loads(HOSTILE["another node"])
    document["request"]["uid"] = uid
    request = admission.decode(json.dumps(document).encode())
    response = json.loads(admission.encode(request, judge(HOSTILE["another node"])))["response"]
    assert response["uid"] == uid
    assert set(response) == {"uid", "allowed", "status"}
    assert response["status"]["code"] == 403
    assert response["status"]["reason"] == "Forbidden"
