"""Every rule has probes, and gives each the verdict that it should."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from noderestrict import admission
from noderestrict.graph.rules import Reach, authorize
from noderestrict.policy import features
from noderestrict.policy.decision import Allowed, Denied, Question
from noderestrict.policy.settings import Settings
from noderestrict.policy.table import RULE_IDS, STRICT_RULE_IDS
from noderestrict.probes.access import ACCESS_RULES, reached, review
from noderestrict.probes.observed import InapplicableError, MissingError, Observed
from noderestrict.probes.probe import Probe
from noderestrict.probes.request import Request
from noderestrict.probes.table import PROBES, expected_rules, probes_for
from tests.probes.cluster import EXTRA, LISTERS, OBSERVED

#: A cluster that serves the resource has its gate on.
NO_REQUEST = {"podcertificaterequests/gate"}


def settings(*, strict: bool) -> Settings:
    gates = {features.POD_CERTIFICATE_REQUEST: True, features.CSI_VOLUME_HEALTH: True}
    return Settings.for_version(overrides=gates, extra=EXTRA if strict else None)


def judged(request: Request, *, strict: bool) -> Any:
    decoded = admission.decode(json.dumps(request.review("uid")).encode())
    return admission.evaluate(decoded, settings(strict=strict), LISTERS)


def probe_id(probe: Probe) -> str:
    return probe.build.__name__


@pytest.mark.parametrize("rule", RULE_IDS)
def test_every_rule_has_a_request_to_refuse_and_one_to_pass(rule: str) -> None:
    assert {probe.hostile for probe in probes_for(rule)} == {True, False}


def test_probes_name_rules_and_say_what_they_ask_for() -> None:
    for probe in PROBES:
        assert set(probe.rules) <= set(RULE_IDS)
        assert probe.what
        assert "\n" not in probe.what


@pytest.mark.parametrize("probe", [one for one in PROBES if one.hostile], ids=probe_id)
def test_the_rule_of_a_hostile_request_refuses_it(probe: Probe) -> None:
    (rule,) = probe.rules
    if rule in NO_REQUEST:
        with pytest.raises(InapplicableError):
            probe.request(OBSERVED)
        return
    decision = judged(probe.request(OBSERVED), strict=rule in STRICT_RULE_IDS)
    if isinstance(decision, Question):
        decision = decision.otherwise
    assert isinstance(decision, Denied), decision
    assert decision.rule == rule


@pytest.mark.parametrize("probe", [one for one in PROBES if not one.hostile], ids=probe_id)
def test_no_rule_refuses_an_honest_request(probe: Probe) -> None:
    strict = set(probe.rules) <= set(STRICT_RULE_IDS)
    assert isinstance(judged(probe.request(OBSERVED), strict=strict), Allowed)


@pytest.mark.parametrize("probe", PROBES, ids=probe_id)
def test_every_request_is_a_dry_run_or_one_that_the_api_server_cannot_serve(probe: Probe) -> None:
    try:
        request = probe.request(OBSERVED)
    except InapplicableError:
        return
    if request.query == {"dryRun": "All"}:
        return
    # The service account is not that of the pod.
    assert request.api.kind == "TokenRequest"
    bound = request.body["spec"]["boundObjectRef"]["name"]
    assert bound in {"web", "db", "far"}
    assert request.name != bound


def test_options_in_the_body_ask_for_a_dry_run_too() -> None:
    for probe in probes_for("pods/delete-own"):
        assert probe.request(OBSERVED).body["dryRun"] == ["All"]
    for probe in probes_for("pods/evict-own"):
        assert probe.request(OBSERVED).body["deleteOptions"]["dryRun"] == ["All"]


def test_what_the_cluster_lacks_is_named() -> None:
    bare = Observed("n1")
    said = set()
    for probe in PROBES:
        try:
            probe.request(bare)
        except (MissingError, InapplicableError) as error:
            said.add(str(error))
    assert {
        "Node n1 cannot be read",
        "it takes a pod on node n1",
        "it takes a pod on another node that can be read",
        "the API server does not serve resourceslices",
    } <= said


def test_without_pods_elsewhere_a_wrong_uid_stands_in_for_a_foreign_pod() -> None:
    alone = replace(OBSERVED, foreign_pods=())
    (hostile,) = (one for one in probes_for("serviceaccounts-token/bound-pod") if one.hostile)
    request = hostile.request(alone)
    decision = judged(request, strict=False)
    assert isinstance(decision, Denied)
    assert decision.rule == "serviceaccounts-token/bound-pod"


def test_strict_rules_are_expected_only_where_they_are_on() -> None:
    assert not set(expected_rules()) & set(STRICT_RULE_IDS)
    assert "nodes/annotations" in expected_rules({"nodes/annotations"})


class _Paths(Reach):
    def reaches(self, node: str, vertex: tuple[str, str, str]) -> bool:
        return node == "n1" and vertex in reached(OBSERVED)


@pytest.mark.parametrize("rule", ACCESS_RULES, ids=lambda rule: rule.id)
def test_the_authorizer_answers_each_question_as_it_should(rule: Any) -> None:
    assert {question.hostile for question in rule.questions} == {True, False}
    gates = features.defaults(features.OFFLINE_MINOR)
    for question in rule.questions:
        access = question.ask(OBSERVED)
        opinion = authorize(access, _Paths(), gates)
        assert opinion.allowed is not question.hostile, question.what


def test_a_question_is_asked_as_a_subject_access_review() -> None:
    (pods,) = (rule for rule in ACCESS_RULES if rule.id == "read/pods")
    asked = review(pods.questions[-1].ask(OBSERVED))
    assert asked["spec"]["user"] == "system:node:n1"
    assert asked["spec"]["resourceAttributes"]["fieldSelector"] == {
        "requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]
    }
    assert msgspec.json.encode(asked)
