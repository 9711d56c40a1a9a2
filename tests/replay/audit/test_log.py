"""The API server's audit log: who would be refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import main
from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy.extra import Extra
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.audit import lookups
from noderestrict.replay.audit.log import AuditLog
from noderestrict.replay.audit.read import events
from noderestrict.replay.results import Result, Undecided
from noderestrict.replay.sources import Unreadable
from tests.replay.audit.logged import (
    ADMIN,
    USER,
    event,
    judged,
    node,
    pod,
    row,
)


@pytest.mark.parametrize(
    ("rule", "patch"),
    [
        ("nodes/unschedulable", {"spec": {"unschedulable": True}}),
        ("nodes/provider-id", {"spec": {"providerID": "a://2"}}),
        ("nodes/pod-cidr", {"spec": {"podCIDR": "10.2.0.0/24"}}),
        ("nodes/finalizers", {"metadata": {"finalizers": ["a/b"]}}),
        ("nodes/annotations", {"metadata": {"annotations": {"a/b": "c"}}}),
    ],
)
def test_a_patch_of_a_field_that_a_strict_rule_guards_is_judged(
    rule: str, patch: dict[str, dict[str, Any]]
) -> None:
    after = node()
    for part, fields in patch.items():
        after[part] = {**after.get(part, {}), **fields}
    one = event("patch", "nodes", "n1", requestObject=patch, responseObject=after)
    strict = Extra.of(parse_strict_rules("all"))
    assert row(judged(one, extra=strict)).rule == rule
    assert row(judged(one)).allowed


def test_others_and_reads_are_not_judged() -> None:
    assert judged(
        event("patch", "nodes", "n2", user=ADMIN),
        event("get", "nodes", "n2"),
        event("update", "nodes", "n2", user=ADMIN, stage="RequestReceived"),
    ) == []  # fmt: skip


def test_names_alone_refuse_at_every_level() -> None:
    found = row(judged(event("patch", "nodes", "n2", level="Metadata")))
    assert (found.allowed, found.rule) == (False, "nodes/own-name")
    assert found.user_agent == "kubelet/v1.36"


def test_what_needs_an_object_is_not_guessed_at_level_metadata() -> None:
    (found,) = judged(event("create", "pods", "p", level="Metadata"))
    assert isinstance(found, Undecided)
    assert "level Metadata holds no object" in found.missing
    (found,) = judged(event("patch", "nodes", "n1", level="Metadata"))
    assert isinstance(found, Undecided)


@pytest.mark.parametrize("body", [{}, {"kind": "Status"}, {"kind": 5}, [], "x", None])
def test_a_body_that_does_not_show_an_object_is_not_judged(body: Any) -> None:
    (found,) = judged(event("create", "pods", "p", requestObject=body))
    assert isinstance(found, Undecided)
    assert "holds no object" in found.missing


def test_a_patch_changes_what_it_names() -> None:
    forbidden = {"node-restriction.kubernetes.io/a": "b"}
    patch = event(
        "patch", "nodes", "n1", requestObject={"metadata": {"labels": forbidden}},
        responseObject=node(**forbidden),
    )  # fmt: skip
    found = row(judged(patch))
    assert (found.allowed, found.rule) == (False, "nodes/labels")
    assert (found.certainty, found.level) == ("inferred", "RequestResponse")
    assert found.rests_on == "the object before is not in the log: the patch changed what it names"
    harmless = event(
        "patch", "nodes", "n1", requestObject={"status": {"phase": "x"}},
        responseObject=node(**forbidden),
    )  # fmt: skip
    assert row(judged(harmless)).allowed


def test_a_kubelets_status_report_is_judged() -> None:
    ready = {"type": "Ready", "status": "True"}
    report = {"status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [ready]}}
    reported = event("patch", "nodes", "n1", requestObject=report, responseObject=node())
    assert row(judged(reported)).allowed


def test_pods_are_learned_from_the_log() -> None:
    where = {"ref": {"namespace": "ns"}}
    created = event("create", "pods", "p", user=ADMIN, responseObject=pod("p", "n2"), **where)
    deleted = event("delete", "pods", "p", ref={"namespace": "ns"})
    found = row(judged(created, deleted))
    assert (found.allowed, found.rule) == (False, "pods/delete-own")
    (unknown,) = judged(deleted)
    assert isinstance(unknown, Undecided)
    assert unknown.missing == "pods ns/p is not in the log; --state can hold it"


def test_an_impersonated_user_is_who_admission_sees() -> None:
    found = judged(event("delete", "nodes", "n2", user=ADMIN, impersonatedUser=USER))
    assert row(found).rule == "nodes/own-name"


def test_lines_that_are_no_events_are_named_and_the_rest_is_judged(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    bad = '{"user": {"username": "system:node:n1"'
    good = json.dumps(event("delete", "nodes", "n2"))
    file.write_text(f"{bad}\n\n{good}\n")
    first, second = AuditLog(Settings.for_version(), MemoryListers()).results(events(str(file)))
    assert isinstance(first, Unreadable)
    assert str(first).startswith(f"{file}:1: the audit event is cut off")
    assert isinstance(second, Result)


@pytest.mark.parametrize("packed", [False, True])
def test_the_command_says_what_it_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    lines = "".join(json.dumps(event("delete", "nodes", f"n{n}")) + "\n" for n in range(1, 4))
    file = tmp_path / "audit.log"
    data = lines.encode()
    file.write_bytes(gzip.compress(data) if packed else data)
    assert main(["replay", "--audit-log", str(file), "--fail-on-denied"]) == 1
    out, err = capsys.readouterr()
    assert "3 cases: 1 allowed, 2 denied" in out
    assert "audit log: 3 events, 3 writes of nodes judged, 0 not judged (--explain says why)" in err


def test_a_broken_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "audit.log.gz"
    file.write_bytes(gzip.compress(b"x" * 1000)[:-10])
    assert main(["replay", "--audit-log", str(file), str(tmp_path / "none")]) == 2
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"some: yaml\n", "no audit events"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\xff" * 40, "rror"),
    ],
)
def test_a_file_that_is_no_audit_log_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, says: str
) -> None:
    file = tmp_path / "audit.log"
    file.write_bytes(data)
    assert main(["replay", "--audit-log", str(file)]) == 2
    err = capsys.readouterr().err
    assert str(file) in err
    assert says in err


def test_a_connection_is_not_a_create() -> None:
    exec_ = event("create", "pods", "p", ref={"namespace": "ns", "subresource": "exec"})
    found = row(judged(exec_))
    assert (found.allowed, found.what) == (True, "CONNECT pods/exec ns/p")


def test_an_event_without_a_resource_is_named() -> None:
    (found,) = judged(event("update", "", "n1"))
    assert isinstance(found, Unreadable)
    assert found.problem == "objectRef.resource is empty"


def test_what_no_rule_reads_is_judged_at_every_level() -> None:
    assert row(judged(event("create", "configmaps", "c", level="Metadata"))).allowed


def test_the_owner_of_a_deleted_slice_must_be_in_the_log() -> None:
    where = {"ref": {"apiGroup": "resource.k8s.io", "apiVersion": "v1"}}
    (unknown,) = judged(event("delete", "resourceslices", "s", **where))
    assert isinstance(unknown, Undecided)
    assert unknown.missing == "the deleted object is not in the log"
    slice_ = {"kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": {"nodeName": "n2"}}
    shown = event("delete", "resourceslices", "s", responseObject=slice_, **where)
    assert row(judged(shown)).rule == "resourceslices/own-node-name"


@pytest.mark.parametrize("limit", ["_MOST_LEARNED", "_MOST_LEARNED_BYTES"])
def test_what_is_learned_for_lookups_is_bounded(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"ref": {"namespace": "ns"}}
    created = event("create", "pods", "p", user=ADMIN, responseObject=pod("p", "n2"), **where)
    evicted = event(
        "create", "pods", "p", requestObject={"kind": "Eviction", "metadata": {"name": "p"}},
        ref={"namespace": "ns", "subresource": "eviction"},
    )  # fmt: skip
    assert row(judged(created, evicted)).rule == "pods/evict-own"
    monkeypatch.setattr(lookups, limit, 0)
    (unknown,) = judged(created, evicted)
    assert isinstance(unknown, Undecided)
