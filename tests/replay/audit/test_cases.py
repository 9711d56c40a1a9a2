"""Small logs after public reports: what somebody else did is not held against a node."""

from pathlib import Path

import pytest

from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.audit.log import AuditLog
from noderestrict.replay.audit.read import events
from noderestrict.replay.results import Result
from tests.replay.audit.logged import verdicts

CASES = Path(__file__).parent / "cases"
RECEIVED = (
    "it holds the writes of nodes only at stage RequestReceived: replay needs ResponseComplete, "
    "which the audit policy must not omit"
)


def replayed(*names: str) -> list[str]:
    log = AuditLog(Settings.for_version(), MemoryListers())
    return verdicts(log.results(*(events(str(CASES / name)) for name in names)))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a01-stale-other-apiserver-label.log", ["allowed", "allowed"]),
        ("a03-stale-admin-at-metadata.log", ["allowed", "allowed"]),
        ("a04-conflict-409.log", ["allowed", "409 Conflict"]),
        ("a06-recreated-pod.log", ["allowed", "allowed"]),
        ("a09-create-409.log", ["nodes/labels"]),
        ("a10-dry-run.log", ["allowed", "allowed"]),
        ("b01-wrapped-elastic.jsonl", ["nodes/own-name", "allowed", "nodes/labels"]),
        ("b03-plain-then-wrapped.jsonl", ["allowed", "nodes/own-name", "nodes/labels"]),
        ("b05-only-requestreceived.log", [RECEIVED]),
        ("d01-audit-bom.log", ["nodes/own-name", "allowed", "nodes/labels"]),
        ("d02-ssa-create-201.log", ["allowed"]),
    ],
)
def test_each_log_is_judged_as_its_events_were(name: str, found: list[str]) -> None:
    assert replayed(name) == found


def test_logs_of_two_api_servers_are_one_log_in_any_order() -> None:
    names = ["a08-order-cp1.log", "a08-order-cp2.log"]
    assert replayed(*names) == replayed(*names[::-1]) == ["allowed", "allowed"]


def test_an_apply_that_creates_is_a_create() -> None:
    log = AuditLog(Settings.for_version(), MemoryListers())
    (found,) = log.results(events(str(CASES / "d02-ssa-create-201.log")))
    assert isinstance(found, Result)
    assert (found.operation, found.certainty) == ("CREATE", "known")
