"""An update may change only the fields that its entry names."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noderestrict.agents.changed import Changeable
from noderestrict.agents.paths import parse_path
from noderestrict.policy.decision import Denied
from noderestrict.policy.semantic import Comparison
from tests.agents.builders import assert_allowed, assert_denied, judge, obj, policy, review


def verdict(fields: str, before: dict[str, Any], after: dict[str, Any]) -> Any:
    held = policy(
        f"{{resources: [things], operations: [UPDATE], relation: any, fields: [{fields}]}}"
    )
    old, new = {**obj("a"), **before}, {**obj("a"), **after}
    return judge(held, review("things", "UPDATE", name="a", old=old, new=new))


def meta(**fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "a", **fields}}


def conditions(*items: Any) -> dict[str, Any]:
    return {"status": {"conditions": list(items)}}


READY, STALE = {"type": "Ready", "status": "True"}, {"type": "Ready", "status": "False"}
DISK = {"type": "Disk", "status": "True"}
KEYED = "'status.conditions[type=Ready]'"
A, B = "metadata.annotations", """'metadata.annotations["x.io/*"]'"""


@pytest.mark.parametrize(
    ("fields", "before", "after", "others"),
    [
        ("", {}, {}, ""),
        ("", {}, {"spec": {"a": 1}}, "spec.a"),
        ("spec", {}, {"spec": {"a": 1}}, ""),
        ("spec", {"spec": {"a": 1}}, {}, ""),
        ("spec.a", {"spec": {"a": 1}}, {"spec": {"a": 2}}, ""),
        ("spec.a", {"spec": {"a": 1, "b": 1}}, {"spec": {"a": 2, "b": 2}}, "spec.b"),
        ("spec.a", {"spec": {"a": {"x": [1]}}}, {"spec": {"a": {"x": [2, 3]}}}, ""),
        ("spec.a", {"spec": {"ab": 1}}, {"spec": {"ab": 2}}, "spec.ab"),
        ("spec.a", {}, {"spec": {"a": 1}}, ""),
        ("spec.a", {"spec": {"a": 1}}, {"spec": "text"}, "spec"),
        ("spec.a", {"spec": {"a": 1}}, {"spec": None}, ""),
        # What the API server changes with each write, and what means nothing.
        ("", meta(resourceVersion="1", generation=1), meta(resourceVersion="2", generation=2), ""),
        ("", meta(managedFields=[{"a": 1}]), meta(managedFields=[]), ""),
        ("", meta(labels={}), meta(labels=None), ""),
        ("", {"status": {}}, {}, ""),
        ("", meta(), meta(labels={"a": ""}), "metadata.labels.a"),
        ("", meta(labels={"a": ""}), meta(), "metadata.labels.a"),
        ("", {}, {"spec": []}, ""),
        ("", {"spec": {"a": False}}, {"spec": {}}, "spec.a"),
        ("", {"spec": {}}, {"spec": {"a": 0}}, "spec.a"),
        ("", {"spec": {"a": 1}}, {"spec": {"a": True}}, "spec.a"),
        ("", {"spec": {"a": "1"}}, {"spec": {"a": 1}}, "spec.a"),
        ("", {"spec": {"a": ""}}, {"spec": {"a": {}}}, "spec.a"),
        ("", {"spec": {"a": {}}}, {"spec": {"a": False}}, "spec.a"),
        ("", {"flag": True}, {"flag": 1}, "flag"),
        ("spec", {"data": {"a": "1"}}, {"spec": {"a": "1"}}, "data.a"),
        ("", meta(finalizers=["a"]), meta(generation=1), "metadata.finalizers"),
        # Keys by pattern.
        (B, meta(), meta(annotations={"x.io/a": "1"}), ""),
        (B, meta(annotations={"x.io/a": "1"}), meta(), ""),
        (
            B,
            meta(),
            meta(annotations={"x.io/a": "1", "y.io/a": "1"}),
            "metadata.annotations['y.io/a']",
        ),
        (B, meta(), meta(annotations={"xxio/a": "1"}), "metadata.annotations['xxio/a']"),
        (B, meta(), meta(labels={"x.io/a": "1"}), "metadata.labels['x.io/a']"),
        (B, meta(finalizers=["a"]), meta(), "metadata.finalizers"),
        (B, meta(), meta(ownerReferences=[{"name": "a"}]), "metadata.ownerReferences"),
        (A, meta(), meta(annotations={"y": "1"}), ""),
        # Lists by index, and by key.
        (
            "'spec.list[*].a'",
            {"spec": {"list": [{"a": 1}, {"a": 1}]}},
            {"spec": {"list": [{"a": 2}, {"a": 3}]}},
            "",
        ),
        (
            "'spec.list[*].a'",
            {"spec": {"list": [{"a": 1}]}},
            {"spec": {"list": [{"a": 2, "b": 1}]}},
            "spec.list[0].b",
        ),
        ("'spec.list[*].a'", {"spec": {"list": [{"a": 1}]}}, {"spec": {"list": []}}, "spec.list"),
        (KEYED, conditions(DISK, READY), conditions(STALE, DISK), ""),
        (KEYED, conditions(DISK), conditions(DISK, READY), ""),
        (KEYED, conditions(DISK, READY), conditions(DISK), ""),
        (KEYED, {}, conditions(READY), ""),
        (KEYED, {}, conditions(READY, DISK), "status.conditions[type=Disk]"),
        (KEYED, conditions(DISK, READY), conditions(READY), "status.conditions[type=Disk]"),
        (
            KEYED,
            conditions(DISK),
            conditions({**DISK, "status": "False"}),
            "status.conditions[type=Disk].status",
        ),
        (KEYED, conditions(READY), conditions(READY, STALE), "status.conditions"),
        (KEYED, conditions(READY), conditions(READY, 1), "status.conditions"),
        (KEYED, conditions(READY), conditions({"type": 1}), "status.conditions"),
        (KEYED, conditions(READY), {"status": {"conditions": "x"}}, "status.conditions"),
        (
            "'status.conditions[type=Ready].reason'",
            conditions(READY),
            conditions(STALE),
            "status.conditions[type=Ready].status",
        ),
    ],
)
def test_only_named_fields_change(
    fields: str, before: dict[str, Any], after: dict[str, Any], others: str
) -> None:
    decision = verdict(fields, before, after)
    if not others:
        assert_allowed(decision)
    else:
        assert_denied(decision, "fields", f"this changes {others}")
        assert str(decision.message).endswith(f"this changes {others}"), decision


FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "generation"]),
    st.sampled_from([b"1", b"true", b"null", b'""', b"[]", b'{"a":1}']).map(msgspec.Raw),
)
OBJECTS = st.dictionaries(
    st.sampled_from(["metadata", "spec", "status", "flag"]),
    FIELDS | st.sampled_from([1, True, None, "", "a"]),
)


@given(OBJECTS, OBJECTS)
def test_a_look_at_what_is_written_alike_hides_no_change(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    changeable = Changeable((parse_path("status"), parse_path("spec.a"), parse_path("spec.b.a")))
    by_meaning = Comparison(changeable._fields, changeable).of_fields(old, new)
    assert list(changeable.others(old, new)) == list(by_meaning)


def test_the_message_lists_what_may_change_and_what_does() -> None:
    after = meta(labels={f"l{number}": "x" for number in range(20)})
    decision = verdict("status, spec.a", {}, after)
    assert_denied(
        decision, "fields", "may change only status, spec.a; this changes metadata.labels.l0"
    )
    assert isinstance(decision, Denied)
    assert decision.message.endswith("metadata.labels.l7, …")


@pytest.mark.parametrize(
    "after",
    [
        meta(labels={f"l{number}": "x" for number in range(100_000)}),
        {"spec": [[0] * 1000 for _ in range(1000)]},
        conditions(*({"type": str(number)} for number in range(50_000))),
    ],
)
def test_huge_changes_are_refused_in_bounded_work(after: dict[str, Any]) -> None:
    before = {"spec": [[1] * 1000 for _ in range(1000)]}
    decision = verdict(f"'spec[*][*]', 'status.conditions[type=x]', {B}", before, after)
    assert isinstance(decision, Denied)
    assert decision.rule in ("agents/driver/fields", "agents/driver/object")
    assert len(decision.message) < 5000


def test_fields_are_compared_on_update_only() -> None:
    held = policy(
        "{resources: [things], operations: [CREATE, UPDATE], relation: any, fields: [status]}"
    )
    assert_allowed(judge(held, review("things", "CREATE", name="a", new=obj("a", spec={"a": 1}))))


def test_skipped_field_checks_refuse_nothing() -> None:
    held = policy("{resources: [things], operations: [UPDATE], relation: any, fields: [status]}")
    body = review("things", "UPDATE", name="a", old=obj("a"), new=obj("a", spec={"a": 1}))
    assert_denied(judge(held, body), "fields")
    assert_allowed(judge(held, body, skipped=frozenset({"agents/driver/fields"})))


def test_the_entry_whose_relation_holds_says_why() -> None:
    held = policy(
        "{resources: [things], operations: [UPDATE], relation: {name: 'x-{node}'}}, "
        "{resources: [things], operations: [UPDATE], relation: any, fields: [status]}, "
        "{resources: [things], operations: [UPDATE], relation: {name: 'y-{node}'}}"
    )
    body = review("things", "UPDATE", name="a", old=obj("a"), new=obj("a", spec={"a": 1}))
    assert_denied(judge(held, body), "fields", "this changes spec")
