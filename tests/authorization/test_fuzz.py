"""Hostile bytes for the authorizer: nothing but ReviewError is raised, and nothing is opened."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from noderestrict import authorization
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import OFFLINE_MINOR, defaults

FEATURES = defaults(OFFLINE_MINOR)
REVIEW: dict[str, Any] = {
    "apiVersion": "authorization.k8s.io/v1",
    "kind": "SubjectAccessReview",
    "metadata": {"name": ""},
    "spec": {
        "user": "system:node:n1",
        "groups": ["system:nodes", "system:authenticated"],
        "extra": {"a": ["b"]},
        "resourceAttributes": {
            "verb": "get",
            "version": "v1",
            "resource": "secrets",
            "namespace": "default",
            "name": "password",
            "fieldSelector": {
                "requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]
            },
        },
    },
}
BODY = json.dumps(REVIEW).encode()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def allowed(body: bytes) -> bool:
    """Return what a server would answer; a body that it refuses to read is not allowed."""
    try:
        review = authorization.decode(body)
    except authorization.ReviewError:
        return False
    answer = authorization.encode(review, authorization.evaluate(review, Graph(), FEATURES))
    status = json.loads(answer)["status"]
    assert not status.get("denied")
    return bool(status["allowed"])


@given(st.integers(0, len(BODY)), st.integers(0, 6), st.binary(max_size=6))
def test_edited_bytes_open_no_secret(at: int, length: int, new: bytes) -> None:
    body = BODY[:at] + new + BODY[at + length :]
    if b'"secrets"' in body and b'"get"' in body:
        assert not allowed(body)
    else:
        allowed(body)


@given(st.data(), VALUES)
def test_no_value_of_any_field_raises_anything_else(data: st.DataObject, value: Any) -> None:
    review = json.loads(BODY)
    where: Any = review
    while True:
        key = data.draw(st.sampled_from(list(where)))
        if not isinstance(where[key], dict) or data.draw(st.booleans()):
            break
        where = where[key]
    where[key] = value
    allowed(json.dumps(review).encode())


@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_else(body: bytes) -> None:
    assert not allowed(body)
