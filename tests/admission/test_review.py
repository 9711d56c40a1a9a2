"""Bytes to decision to bytes."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied, Question, forbidden
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings

SETTINGS = Settings.for_version()
NODE = {"username": "system:node:n1", "groups": ["system:nodes"]}


def hostile() -> dict[str, object]:
    """A node that relabels another node."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u1",
            "operation": "UPDATE",
            "name": "n2",
            "resource": {"group": "", "version": "v1", "resource": "nodes"},
            "kind": {"group": "", "version": "v1", "kind": "Node"},
            "userInfo": NODE,
            "object": {**node, "metadata": {"name": "n2", "labels": {"a": "b"}}},
            "oldObject": node,
        },
    }


def body(**request: object) -> bytes:
    review = hostile()
    review["request"] = {**review["request"], **request}  # type: ignore[dict-item]
    return json.dumps(review).encode()


def verdict(data: bytes) -> Allowed | Denied | Question:
    return admission.evaluate(admission.decode(data), SETTINGS, MemoryListers())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"group": "", "version": "v1", "kind": "Node"}, ("v1", "Node")),
        ({"group": "apps", "version": "v1", "kind": "DaemonSet"}, ("apps/v1", "DaemonSet")),
        ({"kind": "Node"}, ("", "Node")),
        ({"group": "apps", "version": "v1", "kind": ""}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_kind_is_what_its_objects_say(
    kind: dict[str, str] | None, expected: tuple[str, str] | None
) -> None:
    assert admission.decode(body(kind=kind)).kind == expected


@pytest.mark.parametrize(
    ("sub", "path"), [("", "nodes"), (None, "nodes"), ("status", "nodes/status")]
)
def test_a_subresource_follows_its_resource(sub: str | None, path: str) -> None:
    assert admission.resource_path(admission.decode(body(subResource=sub))) == path


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"null", "got `null`"),
        (b"[]", "got `array`"),
        (b"[" * 100_000, "AdmissionReview"),
        (b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}', "request is missing"),
        (b'{"kind":"AdmissionReview","request":{}}', ""),
        (json.dumps({**hostile(), "apiVersion": "admission.k8s.io/v1beta1"}).encode(), "v1beta1"),
        (json.dumps({**hostile(), "kind": "Pod"}).encode(), "'Pod'"),
        (body(uid=""), "request.uid is empty"),
        (body(uid="u" * 1025), "request.uid has 1025 characters"),
        (body(operation="PATCH"), "'PATCH'"),
        (body(resource={"group": "", "version": "v1", "resource": ""}), "request.resource"),
        (body(userInfo="root"), "userInfo"),
        (body(name=5), "$.request.name"),
    ],
)
def test_what_is_no_review_is_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(admission.ReviewError) as error:
        admission.decode(data)
    assert says in str(error.value)


def test_the_answer_echoes_uid_and_api_version() -> None:
    request = admission.decode(body(uid="abc"))
    answer = json.loads(admission.encode(request, Allowed()))
    assert answer == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "abc", "allowed": True},
    }


def test_a_denial_carries_code_reason_and_message() -> None:
    request = admission.decode(body())
    answer = json.loads(admission.encode(request, forbidden("why", rule="r")))["response"]
    assert answer["allowed"] is False
    assert answer["status"] == {"code": 403, "reason": "Forbidden", "message": "why"}


def test_a_question_that_nobody_answered_is_refused() -> None:
    question = Question("verb", "", ("a",), "sa", "ns", forbidden("no", rule="r"))
    answer = json.loads(admission.encode(admission.decode(body()), question))
    assert answer["response"]["allowed"] is False


def test_warnings_and_audit_annotations_are_sent() -> None:
    answer = json.loads(
        admission.encode(admission.decode(body()), Allowed(), ["careful"], {"rule": "nodes/x"})
    )
    assert answer["response"]["warnings"] == ["careful"]
    assert answer["response"]["auditAnnotations"] == {"rule": "nodes/x"}


@pytest.mark.parametrize(
    "user",
    [
        {"username": "system:node:n1", "groups": []},
        {"username": "n1", "groups": ["system:nodes"]},
        {"username": "kubernetes-admin", "groups": None},
        {},
        None,
    ],
)
def test_who_is_no_node_is_allowed_without_a_look_at_the_objects(user: object) -> None:
    assert verdict(body(userInfo=user, object=[1])) == Allowed()


@pytest.mark.parametrize(
    "objects",
    [
        {"object": None},
        {"object": []},
        {"object": "text"},
        {"object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n2"}}},
        {"object": {}},
        {"object": {"apiVersion": "v1", "kind": "Node", "metadata": []}},
        {"oldObject": None},
    ],
)
def test_an_object_that_is_not_what_the_review_says_is_refused(objects: dict[str, object]) -> None:
    decision = verdict(body(name="n1", **objects))
    assert isinstance(decision, Denied)
    assert decision.code == 403


def test_a_node_user_without_a_name_is_refused() -> None:
    user = {"username": "system:node:", "groups": ["system:nodes"]}
    decision = verdict(body(userInfo=user))
    assert isinstance(decision, Denied)
    assert decision.rule == "identity/node-name"


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_crash_the_decoder(data: bytes) -> None:
    with pytest.raises(admission.ReviewError):
        admission.decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metadata", "spec", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["object", "oldObject", "name", "kind", "options", "dryRun"]), JSON)
@settings(max_examples=500, deadline=None)
def test_no_change_of_a_field_lets_a_hostile_review_pass(field: str, value: object) -> None:
    try:
        decision = verdict(body(**{field: value}))
    except admission.ReviewError:
        return
    if field == "name" and value == "n1":
        return
    assert isinstance(decision, Denied)


def test_duplicate_keys_are_read_as_go_reads_them_the_last_one_wins() -> None:
    data = body().replace(b'"name": "n2"', b'"name": "n1", "name": "n2"', 1)
    assert admission.decode(data).name == "n2"


def test_nan_is_no_json() -> None:
    with pytest.raises(admission.ReviewError):
        admission.decode(body().replace(b'"n2"', b"NaN", 1))


def test_objects_stay_raw() -> None:
    assert isinstance(admission.decode(body()).object, msgspec.Raw)
