"""Cases that the plugin and the authorizer of each older version of Kubernetes labelled."""

from functools import cache
from pathlib import Path

import pytest

from noderestrict.graph.graph import Graph
from noderestrict.policy.releases import LATEST, Release
from noderestrict.policy.settings import Settings
from noderestrict.replay.access import judge_access_case
from noderestrict.replay.cases import AccessCase, Case, cases
from noderestrict.replay.results import Result
from noderestrict.replay.reviews import judge_case
from noderestrict.replay.state import load_state

HERE = Path(__file__).parent / "versions"
LISTERS = load_state([str(HERE / "state.json")])
REVIEWS = {25: 2769, 28: 2769, 29: 2769, 31: 3217, 33: 3087, 35: 3131}
QUESTIONS = dict.fromkeys((28, 31, 33, 34), 13009)
#: What a newer authorizer relaxed: nodes may write events.k8s.io events since 1.35, and publish
#: ResourceSlices since 1.30.
RELAXED = {28: {"resourceslices", "events"}, 31: {"events"}, 33: {"events"}, 34: {"events"}}


@cache
def read(file: str) -> tuple[object, ...]:
    return tuple(cases(str(HERE / f"{file}.jsonl.gz")))


@cache
def reviews(minor: int, release: Release) -> tuple[Result, ...]:
    """Return the verdicts, with the gates of a version and the rules of a release."""
    return judged(minor, Settings.for_version(minor, release=release))


def judged(minor: int, settings: Settings) -> tuple[Result, ...]:
    """Return the verdicts about the reviews of a version."""
    found = []
    for case in read(f"admission-1.{minor}"):
        assert isinstance(case, Case), case
        result = judge_case(case, settings, LISTERS)
        assert isinstance(result, Result), result
        found.append(result)
    return tuple(found)


def questions(minor: int, release: Release) -> list[Result]:
    """Return the answers, likewise."""
    settings = Settings.for_version(minor, release=release)
    found = []
    for case in read(f"authorizer-1.{minor}"):
        assert isinstance(case, AccessCase), case
        for result in judge_access_case(case, settings, Graph()):
            assert isinstance(result, Result), result
            found.append(result)
    return found


@pytest.mark.parametrize("minor", REVIEWS)
def test_with_the_rules_of_a_version_reviews_get_the_verdict_of_its_plugin(minor: int) -> None:
    found = reviews(minor, Release(minor))
    assert [(one.id, one.rule, one.message) for one in found if not one.ok] == []
    assert len(found) == REVIEWS[minor]


@pytest.mark.parametrize("minor", REVIEWS)
def test_the_latest_rules_allow_nothing_that_an_older_plugin_refuses(minor: int) -> None:
    found = reviews(minor, LATEST)
    assert [one.id for one in found if one.allowed and not one.ok] == []


@pytest.mark.parametrize("minor", [25, 28, 29, 31, 33])
def test_the_latest_rules_refuse_what_older_plugins_missed(minor: int) -> None:
    refused = {one.rule for one in reviews(minor, LATEST) if not (one.allowed or one.ok)}
    assert "pods/mirror-references" in refused


@pytest.mark.parametrize("minor", QUESTIONS)
def test_with_the_rules_of_a_version_questions_get_the_answer_of_its_authorizer(
    minor: int,
) -> None:
    found = questions(minor, Release(minor))
    assert [(one.id, one.what, one.allowed) for one in found if not one.ok] == []
    assert len(found) == QUESTIONS[minor]


@pytest.mark.parametrize("minor", QUESTIONS)
def test_the_latest_authorizer_allows_more_only_where_a_newer_one_does(minor: int) -> None:
    more = {one.resource for one in questions(minor, LATEST) if one.allowed and not one.ok}
    assert more == RELAXED[minor]


#: The minor versions whose plugins refuse, with equal gates, what a newer one relaxed. Since 1.28,
#: with RecoverVolumeExpansionFailure, nodes may write status.allocatedResourceStatuses (it was
#: called resizeStatus before); since 1.33, the authorizer may grant other audiences, and migrated
#: in-tree volumes count.
STRICTER = {
    "persistentvolumeclaims/status-fields": range(25, 28),
    "serviceaccounts-token/audience": range(32, 33),
}


@cache
def reviews_with_the_latest_gates() -> tuple[Result, ...]:
    return judged(31, Settings.for_version())


@pytest.mark.parametrize("minor", range(25, LATEST.minor))
def test_with_equal_gates_the_latest_rules_allow_only_what_a_release_relaxed(minor: int) -> None:
    older = judged(31, Settings.for_version(release=Release(minor)))
    latest = reviews_with_the_latest_gates()
    pairs = zip(older, latest, strict=True)
    seen = {old.rule for old, new in pairs if new.allowed and not old.allowed}
    assert seen == {rule for rule, minors in STRICTER.items() if minor in minors}
