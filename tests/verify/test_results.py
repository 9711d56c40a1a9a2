"""What follows from the attempts about a rule, and from the rules about the cluster."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from noderestrict.policy.releases import ALWAYS, Since, since
from noderestrict.verify import reports
from noderestrict.verify.release import release_of
from noderestrict.verify.results import (
    ADMISSION,
    AUTHORIZER,
    AUTHORIZERS,
    NOTHING,
    OURS,
    PASSED,
    PLUGIN,
    REFUSED,
    UNTOLD,
    Attempt,
    Findings,
    Outcome,
    RuleResult,
    judge,
)


def attempt(state: str, by: str = "", *, hostile: bool = True, from_: Since = ALWAYS) -> Attempt:
    return Attempt("do it", "request", hostile, from_, Outcome(state, by, f"{state} by {by}"))


REFUSED_BY_PLUGIN, THROUGH = attempt(REFUSED, PLUGIN), attempt(PASSED)
HONEST = attempt(PASSED, hostile=False)


def judged(*attempts: Attempt, half: str = ADMISSION) -> RuleResult:
    return judge(half, "nodes/taints", "taints stay", attempts)


@pytest.mark.parametrize(
    ("attempts", "result"),
    [
        ((REFUSED_BY_PLUGIN, HONEST), "holds"),
        ((REFUSED_BY_PLUGIN, attempt(NOTHING), HONEST), "holds"),
        ((THROUGH, HONEST), "does not hold"),
        ((REFUSED_BY_PLUGIN, THROUGH, HONEST), "does not hold"),
        ((THROUGH, attempt(UNTOLD, hostile=False)), "does not hold"),
        ((attempt(UNTOLD), HONEST), "unknown"),
        ((REFUSED_BY_PLUGIN, attempt(UNTOLD), HONEST), "unknown"),
        ((REFUSED_BY_PLUGIN, attempt(UNTOLD, hostile=False)), "unknown"),
        ((attempt(NOTHING), HONEST), "not applicable"),
        # What refuses everything is not the rule.
        ((REFUSED_BY_PLUGIN, attempt(REFUSED, PLUGIN, hostile=False)), "does not hold"),
        ((REFUSED_BY_PLUGIN, attempt(REFUSED, OURS, hostile=False)), "does not hold"),
        ((attempt(REFUSED, "webhook a"), attempt(REFUSED, "webhook a", hostile=False)),
         "does not hold"),
        ((attempt(REFUSED, AUTHORIZERS), attempt(REFUSED, AUTHORIZERS, hostile=False)),
         "does not hold"),
        # Somebody else may have reasons that have nothing to do with nodes.
        ((REFUSED_BY_PLUGIN, attempt(REFUSED, "webhook a", hostile=False)), "unknown"),
    ],
)  # fmt: skip
def test_a_rule_holds_if_hostile_requests_are_refused_and_honest_ones_pass(
    attempts: tuple[Attempt, ...], result: str
) -> None:
    found = judged(*attempts)
    assert found.result == result
    assert bool(found.why) is (result != "holds")


def test_who_holds_a_rule_is_named_and_nobody_is_if_it_does_not_hold() -> None:
    assert judged(REFUSED_BY_PLUGIN, HONEST).by == (PLUGIN,)
    assert judged(REFUSED_BY_PLUGIN, attempt(REFUSED, OURS), HONEST).by == (PLUGIN, OURS)
    assert judged(REFUSED_BY_PLUGIN, THROUGH, HONEST).by == ()


def test_an_authorizer_must_allow_what_nodes_need() -> None:
    nobody = attempt(REFUSED, "no authorizer allows it", hostile=False)
    assert judged(attempt(REFUSED, "Node authorizer"), nobody, half=AUTHORIZER).result == (
        "does not hold"
    )


BACKPORTED = since(34, (33, 4))


def of(since: Since, state: str, by: str = PLUGIN) -> RuleResult:
    result = judged(attempt(state, by if state == REFUSED else "", from_=since), HONEST)
    return replace(result, rule=f"rule/{since.minor}")


@pytest.mark.parametrize(
    ("rules", "release"),
    [
        ([of(ALWAYS, REFUSED), of(since(31), REFUSED), of(since(34), REFUSED)],
         "at least those of Kubernetes 1.34"),
        ([of(ALWAYS, REFUSED), of(since(31), REFUSED), of(since(34), PASSED)],
         "those of Kubernetes 1.33, without rule/34 (1.34)"),
        ([of(ALWAYS, REFUSED), of(since(37), PASSED)],
         "those of Kubernetes 1.36, without rule/37 (1.37)"),
        ([of(ALWAYS, REFUSED), of(since(31), PASSED), of(since(34), REFUSED)],
         "those of Kubernetes 1.30, without rule/31 (1.31), but with rule/34 (1.34)"),
        # What was backported holds, what was not does not.
        ([of(ALWAYS, REFUSED), of(BACKPORTED, REFUSED), of(since(34), PASSED)],
         "those of Kubernetes 1.33, without rule/34 (1.34)"),
        ([of(ALWAYS, REFUSED), of(since(33), REFUSED), of(BACKPORTED, PASSED)],
         "those of Kubernetes 1.33.3, without rule/34 (1.34, 1.33.4)"),
        ([of(ALWAYS, REFUSED)], "at least those of Kubernetes 1.25"),
        ([of(ALWAYS, PASSED), of(since(34), REFUSED)], "those of no release: 1 do not hold"),
        ([of(ALWAYS, UNTOLD)], "unknown"),
        # An authorizer is no release of the plugin.
        ([of(ALWAYS, REFUSED, AUTHORIZERS), of(since(34), REFUSED, AUTHORIZERS)], "unknown"),
    ],
)  # fmt: skip
def test_the_release_is_the_last_one_of_which_nothing_is_missing(
    rules: list[RuleResult], release: str
) -> None:
    assert release_of(rules) == release


EVIL = '<script>alert("1")</script>\x1b[31m\n]]>'
HOLDS, FAILS, UNKNOWN = (
    judged(one, HONEST) for one in (REFUSED_BY_PLUGIN, THROUGH, attempt(UNTOLD))
)


def findings(*rules: RuleResult) -> Findings:
    return Findings("n1", "admin", True, "1.36.3", "those of Kubernetes 1.36", (), True, rules)


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ((HOLDS,), 0),
        ((HOLDS, judged(attempt(NOTHING), HONEST)), 0),
        ((HOLDS, UNKNOWN), 2),
        ((HOLDS, UNKNOWN, FAILS), 1),
    ],
)
def test_the_exit_code_tells_a_hole_from_what_could_not_be_told(
    rules: tuple[RuleResult, ...], code: int
) -> None:
    assert findings(*rules).exit_code == code


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_report_shows_every_rule_with_its_result() -> None:
    three = findings(HOLDS, replace(FAILS, rule="nodes/labels"), replace(UNKNOWN, rule="pods/x"))
    table = reports.written("table", three)
    assert "nodes/taints  holds          NodeRestriction plugin" in table
    assert "must be refused, but passes: do it" in table
    assert table.endswith("3 rules: 1 hold, 1 do not, 1 could not be told\n")
    value = json.loads(reports.written("json", three))
    assert [rule["result"] for rule in value["rules"]] == ["holds", "does not hold", "unknown"]
    assert value["exitCode"] == 1
    assert value["rules"][0]["attempts"][0]["since"] == "1.25 or older"
    suite = ET.fromstring(reports.written("junit", three))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [len(case.findall("failure")) for case in suite] == [0, 1, 0]
    page = Page(reports.written("html", three))
    assert page.tags.count("details") == 3
    assert "nodes/labels" in page.text


@pytest.mark.parametrize("name", reports.NAMES)
def test_what_a_node_may_choose_stays_text(name: str) -> None:
    evil = judge(ADMISSION, "nodes/taints", EVIL, [
        Attempt(EVIL, EVIL, True, ALWAYS, Outcome(PASSED, "", EVIL)), HONEST
    ], EVIL)  # fmt: skip
    text = reports.written(name, replace(findings(evil), node=EVIL, user=EVIL, notes=(EVIL,)))
    assert "\x1b" not in text
    if name == "html":
        assert "script" not in Page(text).tags
    if name == "junit":
        assert ET.fromstring(text).tag == "testsuite"
    if name == "table":
        assert len(text.splitlines()) == len(
            reports.written(
                name, replace(findings(judged(THROUGH, HONEST)), notes=("x",))
            ).splitlines()
        )


def test_colours_are_for_terminals_only() -> None:
    assert "\033[" not in reports.written("table", findings(FAILS))
    assert "\033[31mdoes not hold\033[0m" in reports.written("table", findings(FAILS), colour=True)
