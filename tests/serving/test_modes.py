"""Rules that are only reported."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from noderestrict import admission
from noderestrict.cli import main
from noderestrict.policy.decision import Allowed, Denied, Question
from noderestrict.policy.modes import AUDIT, ENFORCE, OFF, WARN
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULE_IDS
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from noderestrict.serving.local import LocalJudge
from noderestrict.serving.modes import Modes
from noderestrict.serving.settle import Verdict, settle
from tests.builders import node, update_node
from tests.serving.clients import BAD, EXAMPLES, GOOD, Client, Tally
from tests.serving.tls import serving

CONFORMANCE = Path(__file__).parents[1] / "conformance" / "admission"
LISTERS = load_state([str(CONFORMANCE / "state.json")])
JUDGE = LocalJudge(Settings.for_version(), LISTERS)
REVIEWS = [
    admission.decode(case.review)
    for case in cases(str(CONFORMANCE / "generated.jsonl"))
    if isinstance(case, Case) and case.state is None
]


PLAIN = [admission.evaluate(request, Settings.for_version(), LISTERS) for request in REVIEWS]


def verdicts(modes: Modes) -> list[Verdict]:
    async def one(request: admission.Request) -> Verdict:
        first = await JUDGE.judge(request, 0)
        if isinstance(first, Allowed):
            return Verdict(first)
        return await settle(JUDGE, request, first, 0, modes)

    async def all_of_them() -> list[Verdict]:
        return [await one(request) for request in REVIEWS]

    return asyncio.run(all_of_them())


def test_nothing_is_refused_where_nothing_is_enforced_and_everything_is_told() -> None:
    for decision, found in zip(PLAIN, verdicts(Modes(AUDIT)), strict=True):
        assert isinstance(found.decision, Allowed)
        decision = decision.otherwise if isinstance(decision, Question) else decision
        if isinstance(decision, Denied):
            assert found.reported[0] == decision
        else:
            assert found.reported == ()


def test_what_is_off_is_not_told() -> None:
    assert not [found for found in verdicts(Modes(OFF)) if found.reported]


@pytest.mark.parametrize("rule", RULE_IDS)
def test_a_rule_that_is_only_reported_switches_no_other_off(rule: str) -> None:
    modes = Modes(ENFORCE, {rule: WARN})
    for request, decision, found in zip(REVIEWS, PLAIN, verdicts(modes), strict=True):
        decision = decision.otherwise if isinstance(decision, Question) else decision
        if not isinstance(decision, Denied) or decision.rule != rule:
            assert found == Verdict(decision)
            continue
        assert found.reported == (decision,)
        others = admission.evaluate(request, Settings.for_version(), LISTERS, {rule})
        if isinstance(others, Denied) and others.rule != rule:
            assert found.decision == others
        else:
            assert isinstance(found.decision, Allowed | Denied)
            assert isinstance(found.decision, Denied) == isinstance(others, Question)


def test_every_rule_that_objects_is_reported_or_enforced() -> None:
    old, new = node(), node({"k8s.io/a": "b"}, spec={"taints": [{"key": "a"}]})
    new["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "X", "name": "x"}]
    request = admission.decode(update_node(old, new))
    wanted = ["nodes/taints", "nodes/owner-references", "nodes/labels"]
    for enforced in range(len(wanted) + 1):
        modes = Modes(ENFORCE, dict.fromkeys(wanted[:enforced], AUDIT))
        first = asyncio.run(JUDGE.judge(request, 0))
        assert isinstance(first, Denied)
        found = asyncio.run(settle(JUDGE, request, first, 0, modes))
        assert [denied.rule for denied in found.reported] == wanted[:enforced]
        if enforced < len(wanted):
            assert isinstance(found.decision, Denied)
            assert found.decision.rule == wanted[enforced]
        else:
            assert isinstance(found.decision, Allowed)


def answer(body: bytes) -> dict[str, object]:
    response: dict[str, object] = json.loads(body)["response"]
    return response


@pytest.mark.parametrize("mode", ["warn", "audit"])
def test_a_server_allows_and_tells(tmp_path: Path, mode: str) -> None:
    state = ("--state", str(EXAMPLES / "state.json"))
    with serving(
        tmp_path, *state, "--rule-modes", f"pods/mirror-references={mode}", state=False
    ) as (server):
        response = answer(server.request("/validate", BAD)[1])
        assert response["allowed"] is True
        assert response["auditAnnotations"] == {
            "rule": "pods/mirror-references",
            "node": "worker-1",
            "decision": "would-be-denied",
        }
        assert ("warnings" in response) is (mode == "warn")
        assert f'"mode":"{mode}"' in server.wait_for_log("would be refused")[0]
        assert "auditAnnotations" not in answer(server.request("/validate", GOOD)[1])


def test_a_refusal_is_annotated_too(tmp_path: Path) -> None:
    with serving(tmp_path, "--state", str(EXAMPLES / "state.json"), state=False) as server:
        response = answer(server.request("/validate", BAD)[1])
        assert response["allowed"] is False
        assert response["auditAnnotations"]["decision"] == "denied"  # type: ignore[index]


async def test_a_rule_is_enforced_on_a_running_server_and_no_request_fails(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("rule-modes: {pods/mirror-references: audit}\n")
    flags = ("--state", str(EXAMPLES / "state.json"), "--config", str(config),
             "--config-poll", "0.05")  # fmt: skip
    running = serving(tmp_path, *flags, state=False)
    server = await asyncio.to_thread(running.__enter__)
    tally = Tally()
    clients = [Client(server.port, server.context, tally, reconnect=10**9) for _ in range(10)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        assert answer((await asyncio.to_thread(server.request, "/validate", BAD))[1])["allowed"]
        rewrite(config, b"rule-modes: {pods/mirror-references: nonsense}\n")
        told = await asyncio.to_thread(server.wait_for_log, "configuration rejected")
        assert "nonsense" in told[0]
        assert answer((await asyncio.to_thread(server.request, "/validate", BAD))[1])["allowed"]
        config.write_text("rule-modes: {}\n")
        await asyncio.to_thread(server.wait_for_log, '"rule modes"')
        refused = await asyncio.to_thread(server.request, "/validate", BAD)
        assert answer(refused[1])["allowed"] is False
    finally:
        for client in clients:
            client.stopping = True
        await asyncio.gather(*tasks)
        await asyncio.to_thread(running.__exit__, None, None, None)
    assert tally.failures == []
    assert tally.answers.keys() == {200}


def rewrite(config: Path, content: bytes) -> None:
    """Replace a file at once: no poll sees it while it is empty."""
    new = config.with_name("new.yaml")
    new.write_bytes(content)
    new.replace(config)


def a_fifo(config: Path) -> None:
    config.unlink()
    os.mkfifo(config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config.write_text(""), "the file is empty"),
        (lambda config: config.write_text("# nothing"), "the file is empty"),
        (lambda config: rewrite(config, b"\xff"), "not UTF-8: byte 0xff at position 0"),
        (lambda config: config.unlink(), "No such file"),
        (a_fifo, "not a regular file"),
    ],
    ids=["empty", "comment", "not UTF-8", "gone", "FIFO"],
)
def test_a_file_that_cannot_be_used_leaves_the_modes_as_they_are(
    tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mode: audit\n")
    flags = ("--state", str(EXAMPLES / "state.json"), "--config", str(config),
             "--config-poll", "0.02")  # fmt: skip
    with serving(tmp_path, *flags, state=False) as server:
        change(config)
        line = server.wait_for_log("configuration rejected")[0]
        assert told in line
        assert f"--config {config}" in line
        assert answer(server.request("/validate", BAD)[1])["allowed"] is True
        assert 'noderestrict_config_reloads_total{result="refused"} 1.0' in server.metrics()
        config.unlink(missing_ok=True)
        config.write_text("{mode: enforce}\n")
        server.wait_for_log('"rule modes"')
        assert answer(server.request("/validate", BAD)[1])["allowed"] is False


async def test_a_flag_stays_in_effect_whatever_the_file_says(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mode: enforce\n")
    flags = ("--state", str(EXAMPLES / "state.json"), "--config", str(config), "--mode", "audit")
    with serving(tmp_path, *flags, state=False) as server:
        assert answer(server.request("/validate", BAD)[1])["allowed"] is True


def test_a_strict_rule_that_is_off_has_no_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--tls-dir", str(tmp_path), "--rule-modes", "nodes/pod-cidr=audit"]) == 2
    assert "'nodes/pod-cidr' is off, so that it has no mode" in capsys.readouterr().err


def test_a_strict_rule_can_be_tried_in_audit_mode(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "strict-rules: [nodes/unschedulable]\nrule-modes: {nodes/unschedulable: audit}\n"
    )
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}}
    review = json.loads(GOOD)
    review["request"] |= {
        "kind": {"group": "", "version": "v1", "kind": "Node"},
        "resource": {"group": "", "version": "v1", "resource": "nodes"},
        "subResource": "",
        "name": "worker-1",
        "namespace": "",
        "oldObject": node,
        "object": {**node, "spec": {"unschedulable": True}},
    }
    state = ("--state", str(EXAMPLES / "state.json"), "--config", str(config))
    with serving(tmp_path, *state, "--config-poll", "0.05", state=False) as server:
        told = answer(server.request("/validate", json.dumps(review).encode())[1])
        assert told["allowed"] is True
        assert told["auditAnnotations"]["rule"] == "nodes/unschedulable"  # type: ignore[index]
        rewrite(config, b"strict-rules: [nodes/unschedulable]\n")
        server.wait_for_log('"rule modes"')
        told = answer(server.request("/validate", json.dumps(review).encode())[1])
        assert told["allowed"] is False
        rewrite(config, b"rule-modes: {nodes/pod-cidr: audit}\n")
        assert "'nodes/pod-cidr' is off" in server.wait_for_log("configuration rejected")[0]
        line = json.loads(server.wait_for_log("a changed setting needs a restart")[0])
        assert line["setting"] == "strict-rules"
        assert (line["running"], line["configured"]) == ("['nodes/unschedulable']", "[]")
        assert 'noderestrict_config_reloads_total{result="needs_restart"} 1.0' in server.metrics()
