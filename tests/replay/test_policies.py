"""``replay --policies``: policies and rules say the same, or it is reported."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict.cli import main
from noderestrict.policy.releases import RULES_ANNOTATION
from noderestrict.replay.policies import cel
from tests.builders import node, obj, review, token_request, update_node
from tests.replay.audit.logged import event
from tests.replay.policies.test_evaluate import NODES, binding, policy

Object = dict[str, Any]
#: As the rule, for one key that it knows.
LABELS = {
    "expression": "object.metadata.?labels.?x.orValue('') == "
    "oldObject.?metadata.?labels.?x.orValue('')",
    "message": "nodes/labels: x may not change",
    "reason": "Forbidden",
}
_DIFFERS = "1 not as expected", 'failures="1"', "expected denied 403"
FORBIDDEN = {"x": "1", "node-restriction.kubernetes.io/x": "1"}
Replay = Callable[..., tuple[int, list[Object], str]]


@pytest.fixture
def replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Replay:
    """Judge reviews or events by policies; return exit code, reported cases and notes."""

    def run(policies: list[Object], cases: list[bytes], *flags: str) -> tuple[int, list[Any], str]:
        (tmp_path / "policies.yaml").write_text("---\n".join(map(yaml.safe_dump, policies)))
        (tmp_path / "cases.jsonl").write_bytes(b"\n".join(cases) + b"\n")
        paths = "--policies", str(tmp_path / "policies.yaml"), str(tmp_path / "cases.jsonl")
        code = main(["replay", "--output", "json", *paths, *flags])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


def labels(**changes: Any) -> Object:
    return policy(validations=[{**LABELS, **changes}])


def changed(new: dict[str, str] | None = None) -> bytes:
    return update_node(node(), node(FORBIDDEN if new is None else new))


def test_equal_verdicts_are_as_expected(replay: Replay) -> None:
    code, found, notes = replay([labels(), binding()], [changed(), changed({})])
    assert code == 0
    assert [(one["allowed"], one["ok"]) for one in found] == [(False, True), (True, True)]
    assert found[0]["rule"] == "nodes/labels"
    assert found[0]["message"] == "nodes/labels: x may not change"
    assert not any("detail" in one for one in found)
    assert "2 of 2 as expected" in notes


def test_what_a_covered_rule_refuses_a_policy_must_refuse(replay: Replay) -> None:
    code, found, _ = replay([labels(expression="true"), binding()], [changed()])
    assert code == 1
    assert (found[0]["allowed"], found[0]["ok"]) == (True, False)
    assert found[0]["expected"]["allowed"] is False
    assert found[0]["detail"].startswith("nodes/labels: ")


def test_what_the_rules_allow_a_policy_must_allow(replay: Replay) -> None:
    code, found, _ = replay([labels(expression="false"), binding()], [changed({})])
    assert code == 1
    assert (found[0]["allowed"], found[0]["ok"]) == (False, False)


def test_an_error_of_a_policy_refuses_what_the_rules_allow(replay: Replay) -> None:
    broken = labels(expression="object.metadata.labels.x == '1'")
    code, found, _ = replay([broken, binding()], [changed({})])
    assert code == 1
    assert (found[0]["code"], found[0]["rule"]) == (422, "p")
    assert "resulted in error" in found[0]["message"]


def test_a_policy_that_matches_too_little_is_found(replay: Replay) -> None:
    nothing = {"resourceRules": [{**NODES, "operations": ["DELETE"]}]}
    narrow = policy(validations=[LABELS], matchConstraints=nothing)
    assert replay([narrow, binding()], [changed()])[0] == 1
    narrowed = binding(matchResources=nothing)
    assert replay([labels(), narrowed], [changed()])[0] == 1
    never = policy(validations=[LABELS], matchConditions=[{"name": "never", "expression": "false"}])
    assert replay([never, binding()], [changed()])[0] == 1


def test_what_no_policy_covers_is_no_difference_but_is_said(replay: Replay) -> None:
    taints = update_node(node(), node(spec={"taints": [{"key": "k", "effect": "NoSchedule"}]}))
    code, found, notes = replay([labels(), binding()], [taints])
    assert code == 0
    assert found[0]["uncovered"] == "nodes/taints"
    assert (found[0]["allowed"], "ok" in found[0]) == (True, False)
    assert "1 refused by rules that no policy covers: 1 nodes/taints" in notes


def test_a_node_user_without_a_name_is_expected_only_where_policies_look(replay: Replay) -> None:
    anonymous = policy(
        validations=[{"expression": "false", "message": "identity/node-name: which node"}],
        matchConditions=[{"name": "n", "expression": "'system:nodes' in request.userInfo.groups"}],
    )
    bound = [anonymous, binding()]
    elsewhere = review("secrets", "CREATE", new=obj("secrets"), user="system:node:")
    code, found, _ = replay(bound, [elsewhere])
    assert (code, found[0]["uncovered"]) == (0, "identity/node-name")
    here = review("nodes", "UPDATE", new=node(), old=node(), user="system:node:")
    code, found, _ = replay(bound, [here])
    assert (code, found[0]["ok"]) == (0, True)
    allows = policy(validations=[{"expression": "true", "message": "identity/node-name: any"}])
    assert replay([allows, binding()], [here])[0] == 1


def test_a_binding_that_only_warns_counts_as_a_refusal(replay: Replay) -> None:
    warns = binding(validationActions=["Warn", "Audit"])
    code, found, _ = replay([labels(), warns], [changed()])
    assert (code, found[0]["ok"]) == (0, True)
    assert found[0]["message"] == "nodes/labels: x may not change (Warn and Audit only)"


def test_what_only_an_api_server_knows_is_undecided(replay: Replay) -> None:
    asks = labels(expression="authorizer.group('').resource('nodes').check('get').allowed()")
    code, found, notes = replay([asks, binding()], [changed()])
    assert (code, found[0]["decision"]) == (0, "undecided")
    assert found[0]["missing"] == "p: the authorizer is not asked"
    assert "1 undecided" in notes


def test_reads_are_not_for_policies(replay: Replay) -> None:
    access = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:node:n1",
            "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "get", "resource": "secrets", "name": "s"},
        },
    }
    code, found, _ = replay([labels(), binding()], [json.dumps(access).encode()])
    assert (code, found[0]["decision"]) == (0, "not judged")
    assert found[0]["why"].startswith("authorization")


def test_the_whole_request_is_there_for_policies(replay: Replay) -> None:
    body = json.loads(changed({}))
    body["request"] |= {
        "requestKind": {"group": "", "version": "v1", "kind": "Other"},
        "requestResource": {"group": "", "version": "v2", "resource": "nodes"},
        "options": {"kind": "UpdateOptions", "fieldManager": "kubelet"},
        "dryRun": True,
    }
    body["request"]["userInfo"]["extra"] = {"k": ["v"]}
    conditions = (
        "request.requestKind.kind == 'Other'",
        "request.requestResource.version == 'v2'",
        "request.options.fieldManager == 'kubelet'",
        "request.dryRun",
        "request.userInfo.extra['k'] == ['v']",
    )
    code, found, _ = replay([policy(*conditions), binding()], [json.dumps(body).encode()])
    assert (code, found[0]["allowed"]) == (0, True)


@pytest.mark.parametrize("output", ["table", "html", "junit", "markdown"])
def test_every_report_shows_a_difference(
    output: str, replay: Replay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay([labels(expression="true"), binding()], [changed()])
    paths = "--policies", str(tmp_path / "policies.yaml"), str(tmp_path / "cases.jsonl")
    assert main(["replay", "--output", output, *paths]) == 1
    shown = capsys.readouterr().out
    assert "denied 403" in shown
    assert any(text in shown for text in _DIFFERS)


def logged(*events: Object) -> list[bytes]:
    return [json.dumps(one).encode() for one in events]


def test_an_audit_log_is_judged_by_policies(replay: Replay) -> None:
    sent = {"metadata": {"name": "n1", "labels": FORBIDDEN}}
    answer = {
        **node(FORBIDDEN),
        "metadata": {**node(FORBIDDEN)["metadata"], "resourceVersion": "2"},
    }
    patched = event("patch", "nodes", "n1", requestObject=sent, responseObject=answer)
    code, found, _ = replay([labels(), binding()], logged(patched))
    assert code == 0
    assert (found[0]["allowed"], found[0]["ok"]) == (False, True)
    code, found, _ = replay([labels(expression="true"), binding()], logged(patched))
    assert code == 1


def test_a_log_without_objects_leaves_policies_undecided(replay: Replay) -> None:
    patched = event("patch", "nodes", "n1", level="Metadata")
    _, found, _ = replay([labels(), binding()], logged(patched))
    assert found[0]["decision"] == "undecided"
    assert "Metadata" in found[0]["missing"]


def test_other_policies_may_read_what_a_log_does_not_show(replay: Replay) -> None:
    answer = node({"x": "1"})
    patched = event("patch", "nodes", "n1", requestObject={}, responseObject=answer)
    other = policy("object.metadata.labels.x == '2'")
    _, found, _ = replay([other, binding()], logged(patched))
    assert (found[0]["allowed"], found[0]["certainty"]) == (False, "inferred")
    assert found[0]["restsOn"] == "policy p may read what the log does not show"


def test_a_policy_on_what_no_rule_judges_needs_the_object(replay: Replay) -> None:
    anything = {"resourceRules": [{**NODES, "resources": ["configmaps"]}]}
    other = policy("object.data.x == '2'", matchConstraints=anything)
    sent = {**obj("secrets", metadata={"name": "c"}), "kind": "ConfigMap", "data": {"x": "2"}}
    created = event("create", "configmaps", "c", requestObject=sent)
    _, found, _ = replay([other, binding()], logged(created))
    assert (found[0]["allowed"], found[0]["ok"]) == (True, True)
    unseen = event("create", "configmaps", "c", level="Metadata")
    _, found, _ = replay([other, binding()], logged(unseen))
    assert found[0]["decision"] == "undecided"
    assert found[0]["missing"] == "policy p reads the object"


def test_a_lookup_that_no_policy_makes_decides_nothing(replay: Replay) -> None:
    asks = [token_request("p9", "uid", "aud")]
    code, found, _ = replay([labels(), binding()], asks)
    assert code == 0
    assert found[0]["uncovered"].startswith("serviceaccounts-token/")


def test_a_policy_without_a_binding_and_another_release_are_said(replay: Replay) -> None:
    old = labels()
    old["metadata"]["annotations"] = {RULES_ANNOTATION: "1.33"}
    loose = policy("true", name="loose")
    _, _, notes = replay([old, loose, binding()], [changed()])
    assert "policy loose has no binding, so it does nothing" in notes
    assert "1 policy of the rules of 1.33" in notes
    assert "--rules 1.33 compares with the same" in notes
    _, _, notes = replay([old, binding()], [changed()], "--rules", "1.33")
    assert "compares with the same" not in notes


@pytest.mark.parametrize(
    ("policies", "problem"),
    [
        ([policy("foo")], "line 1, column 1: undeclared reference to 'foo'"),
        ([{"kind": "Pod"}], "kind Pod is no ValidatingAdmissionPolicy"),
        ([policy("true", failurePolicy="Maybe")], "spec.failurePolicy: Maybe"),
    ],
)
def test_a_bad_policy_ends_the_command_with_one_line(
    policies: list[Object], problem: str, replay: Replay
) -> None:
    code, found, notes = replay(policies, [changed()])
    assert (code, found) == (2, [])
    assert notes.startswith("noderestrict replay: --policies: ")
    assert "policies.yaml" in notes
    assert problem in notes
    assert notes.count("\n") == 1


@pytest.mark.parametrize(
    "flags", [("--rules", "1.33", "--rules", "1.34"), ("--policies", "-", "--audit-log", "-")]
)
def test_policies_are_compared_with_one_release_and_read_stdin_once(
    flags: tuple[str, ...], replay: Replay
) -> None:
    code, _, notes = replay([labels(), binding()], [changed()], *flags)
    assert code == 2
    assert "--policies: give one release at most, and stdin once" in notes


def test_a_missing_library_says_what_to_install(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    cel._library.cache_clear()
    try:
        code, _, notes = replay([labels(), binding()], [changed()])
    finally:
        cel._library.cache_clear()
    assert code == 2
    assert "pip install 'noderestrict[policies]'" in notes
    assert notes.count("\n") == 1


HERE = Path(__file__).parents[1] / "conformance"


@pytest.mark.parametrize("flags", [(), ("--rules", "1.33"), ("--strict-rules", "all")])
def test_the_rendered_policies_say_what_the_rules_say(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    state, cases = HERE / "captured" / "state.json", HERE / "captured" / "captured.jsonl"
    code = main(["replay", "--policies", "rendered", "--state", str(state), str(cases), *flags])
    out, err = capsys.readouterr()
    assert code == 0, out
    assert " 0 not as expected" in out
    assert err == ""


def test_the_rendered_policies_stand_alone(replay: Replay) -> None:
    code, _, notes = replay([labels(), binding()], [changed()], "--policies", "rendered")
    assert code == 2
    assert "rendered stands alone" in notes
