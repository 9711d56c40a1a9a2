"""What the API server answered decides whether admission had a say."""

from typing import Any

import pytest

from noderestrict.cli import main
from noderestrict.replay.results import NotJudged, Result, Summary, Undecided
from tests.replay.audit.logged import ADMIN, at, event, judged, node, pod, row, stored, verdicts

KEY = "node-restriction.kubernetes.io/a"
SETS = {"metadata": {"labels": {KEY: "b"}}}


def answered(verb: str, code: int, reason: str = "", **more: Any) -> dict[str, Any]:
    status = {"code": code, **({"reason": reason} if reason else {})}
    body = SETS if verb == "patch" else node(**{KEY: "b"})
    return event(verb, "nodes", "n1", responseStatus=status,
                 **{"requestObject": body, **more})  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "code", "reason", "why"),
    [
        ("update", 409, "Conflict", "409 Conflict"),
        ("patch", 409, "Conflict", "409 Conflict"),
        ("delete", 409, "Conflict", "409 Conflict"),
        ("create", 409, "Conflict", "409 Conflict"),
        ("patch", 404, "NotFound", "404 NotFound"),
        ("create", 404, "", "404 Not Found"),
        ("patch", 422, "Invalid", "422 Invalid"),
        ("create", 422, "Invalid", "422 Invalid"),
        ("patch", 500, "InternalError", "500 InternalError"),
        ("patch", 504, "", "504 Gateway Timeout"),
        ("patch", 400, "BadRequest", "400 BadRequest"),
        ("patch", 429, "TooManyRequests", "429 TooManyRequests"),
        ("patch", 415, "", "415 Unsupported Media Type"),
        ("patch", 599, "", "599"),
    ],
)
def test_what_never_came_to_admission_is_counted_apart(
    verb: str, code: int, reason: str, why: str
) -> None:
    (found,) = judged(answered(verb, code, reason))
    assert isinstance(found, NotJudged)
    assert (found.why, found.node, found.name) == (why, "n1", "n1")


def test_a_panic_is_no_answer() -> None:
    assert verdicts(judged(answered("patch", 200, stage="Panic"))) == ["Panic"]


@pytest.mark.parametrize("reason", ["AlreadyExists", ""])
def test_admission_comes_before_an_object_exists_already(reason: str) -> None:
    assert verdicts(judged(answered("create", 409, reason))) == ["nodes/labels"]
    body = node(**{"kubernetes.io/os": "linux"})
    assert verdicts(judged(answered("create", 409, reason, requestObject=body))) == ["allowed"]


def test_a_disruption_budget_comes_after_admission() -> None:
    where = {"namespace": "ns"}
    shown = event("create", "pods", "p", user=ADMIN, ref=where, responseObject=pod("p", "n2"))
    evicted = event("create", "pods", "p", ref={**where, "subresource": "eviction"},
                    requestObject={"kind": "Eviction", "metadata": {"name": "p"}},
                    responseStatus={"code": 429, "reason": "TooManyRequests"})  # fmt: skip
    assert verdicts(judged(shown, evicted)) == ["pods/evict-own"]


def test_what_was_refused_already_is_judged_and_not_counted_as_a_refusal() -> None:
    summary = Summary()
    for one in judged(
        answered("patch", 403),
        answered("patch", 403, requestObject={"status": {}}),
        answered("patch", 403, level="Metadata", requestObject=None),
        answered("create", 403),
        answered("patch", 200, responseObject=stored(node(**{KEY: "b"}), 5)),
    ):
        assert isinstance(one, Result | Undecided)
        assert one.already_refused == (one is not None and one.line < 5)
        summary.count(one)
    assert (summary.total, summary.denied, summary.already_refused) == (1, 1, 4)
    assert summary.undecided == 0
    assert "1 case: 0 allowed, 1 denied" in str(summary)
    assert "4 already refused by the API server" in str(summary)


def test_what_was_refused_already_makes_no_exit_code(tmp_path: Any) -> None:
    import json

    file = tmp_path / "audit.log"
    file.write_text(json.dumps(answered("create", 403)) + "\n")
    assert main(["replay", "--audit-log", str(file), "--fail-on-denied"]) == 0


@pytest.mark.parametrize("query", ["dryRun=All", "fieldManager=x&dryRun=All", "dryRun=All&pretty"])
def test_a_dry_run_is_judged_and_marked(query: str) -> None:
    uri = {"requestURI": f"/api/v1/nodes?{query}"}
    found = row(judged(answered("create", 201, **uri)))
    assert (found.rule, found.dry_run) == ("nodes/labels", True)
    summary = Summary()
    summary.count(found)
    assert (summary.denied, summary.dry_runs) == (1, 1)


@pytest.mark.parametrize("verb", ["patch", "update"])
def test_what_made_an_object_is_a_create(verb: str) -> None:
    tainted = {**node(), "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    for answer in (tainted, None):
        one = event(verb, "nodes", "n1", responseStatus={"code": 201}, requestObject=tainted,
                    responseObject=answer)  # fmt: skip
        found = row(judged(one))
        assert (found.operation, found.allowed, found.certainty) == ("CREATE", True, "known")


def test_a_result_says_where_it_comes_from() -> None:
    one = at(3, answered("create", 201, auditID="a1"))
    found = row(judged(one))
    assert (found.file, found.line, found.time) == ("cp1.log", 1, "2025-01-01T00:00:03.010000Z")
    assert (found.user, found.node, found.user_agent) == ("system:node:n1", "n1", "kubelet/v1.36")
    assert (found.operation, found.resource, found.name) == ("CREATE", "nodes", "n1")
    assert (found.id, found.level) == ("a1", "RequestResponse")


def test_events_of_several_files_are_in_the_order_of_their_times() -> None:
    from tests.replay.audit.logged import merged

    first = [at(1, answered("create", 201, auditID="a")), at(4, answered("create", 201))]
    second = [at(2, answered("create", 201, auditID="b")), at(3, answered("create", 201))]
    for files in ((first, second), (second, first)):
        found = [one for one in merged(*files) if isinstance(one, Result)]
        assert [one.time[17:19] for one in found] == ["01", "02", "03", "04"]


def test_an_event_without_a_time_stays_in_its_place() -> None:
    from tests.replay.audit.logged import merged

    untimed = answered("create", 201, auditID="x", stageTimestamp="at noon")
    found = merged([at(1, answered("create", 201)), untimed, at(5, answered("create", 201))],
                   [at(3, answered("create", 201, auditID="y"))])  # fmt: skip
    assert [one.id for one in found if isinstance(one, Result)][1:3] == ["x", "y"]
