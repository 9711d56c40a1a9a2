"""What a refusal tells: nothing that was looked up, whoever asks.

Whoever reaches the port may post a review of any node. The values that the cluster's objects hold,
and those that the API server adds to a node's own request, are for the log alone.
"""

import json
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from noderestrict import admission, authorization
from noderestrict.api.resources import ObjectKey
from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.graph.graph import Graph
from noderestrict.policy import modes
from noderestrict.policy.decision import Allowed, Decision, Denied, Question
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import parse_node_keys
from noderestrict.policy.listers import Listers, MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.access import judge_access_case
from noderestrict.replay.cases import AccessCase, Case, cases
from noderestrict.replay.results import Result
from noderestrict.replay.reviews import circumstances
from noderestrict.replay.state import load_state
from noderestrict.serving import validate
from noderestrict.serving.modes import Modes
from noderestrict.serving.settle import Verdict

HERE = Path(__file__).parent
SUITES = ["admission/generated.jsonl", "captured/captured.jsonl"]
#: Stands before every name that only the cluster knows.
SECRET = "zq7"
EVERYTHING = Settings.for_version(
    extra=Extra.of(
        parse_strict_rules("all"),
        forbidden_labels=parse_node_keys("*=example.com/*|topology.kubernetes.io/zone"),
    )
)

_Record = TypeVar("_Record", bound=msgspec.Struct)


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


class Renamed(Listers):
    """Listers over the same objects, in which each text that was not sent has another value.

    A name leads to the object that it led to before, so that no verdict may change.

    Args:
        listers: the objects.
        sent: the texts of the request.
    """

    def __init__(self, listers: MemoryListers, sent: Set[str]) -> None:
        self._listers = listers
        self._sent = sent

    def _renamed(self, record: _Record | None) -> _Record | None:
        if record is None:
            return None
        changes: dict[str, Any] = {}
        for field in record.__struct_fields__:
            value = getattr(record, field)
            if isinstance(value, tuple):
                changes[field] = tuple(map(self._text, value))
            elif isinstance(value, str):
                changes[field] = self._text(value)
        return msgspec.structs.replace(record, **changes)

    def _text(self, text: str) -> str:
        return text if not text or text in self._sent else SECRET + text

    def get(self, key: ObjectKey) -> Any:
        namespace, name = key.namespace.removeprefix(SECRET), key.name.removeprefix(SECRET)
        return self._renamed(self._listers.get(ObjectKey(key.resource, namespace, name)))


def sent_by_the_requester(review: Any) -> set[str]:
    """Return the texts of a request; the API server adds the existing object itself."""
    request = {key: value for key, value in review["request"].items() if key != "oldObject"}
    return {*texts(request), request["userInfo"].get("username", "").rpartition(":")[2]}


def judged(file: str, settings: Settings) -> Iterator[tuple[Case, Settings, MemoryListers]]:
    listers = load_state([str((HERE / file).parent / "state.json")])
    for case in cases(str(HERE / file)):
        assert isinstance(case, Case)
        yield (case, *circumstances(case, settings, listers))


def settled(decision: Decision) -> Allowed | Denied:
    return decision.otherwise if isinstance(decision, Question) else decision


def answers(request: admission.Request, denied: Denied) -> list[bytes]:
    """Return the answers to a refused request, enforced and only told of."""
    return [
        validate.encode(request, verdict, Modes(mode))
        for mode, verdict in (
            (modes.ENFORCE, Verdict(denied)),
            (modes.WARN, Verdict(Allowed(), (denied,))),
            (modes.AUDIT, Verdict(Allowed(), (denied,))),
        )
    ]


@pytest.mark.parametrize("settings", [Settings.for_version(), EVERYTHING], ids=["plugin", "strict"])
@pytest.mark.parametrize("file", SUITES)
def test_no_answer_depends_on_a_name_that_only_the_cluster_knows(
    file: str, settings: Settings
) -> None:
    told: Counter[str] = Counter()
    for case, own, listers in judged(file, settings):
        request = admission.decode(case.review)
        sent = sent_by_the_requester(json.loads(case.review))
        plain = settled(admission.evaluate(request, own, listers))
        renamed = settled(admission.evaluate(request, own, Renamed(listers, sent)))
        if isinstance(plain, Allowed):
            assert renamed == plain, case.id
            continue
        assert isinstance(renamed, Denied), case.id
        assert answers(request, renamed) == answers(request, plain), case.id
        told[renamed.rule] += SECRET in renamed.detail
    # Else there was nothing that could have been told.
    assert {rule for rule, count in told.items() if count} >= {
        "pods/evict-own",
        "serviceaccounts-token/bound-pod",
        "serviceaccounts-token/audience",
        "podcertificaterequests/pod",
        "podcertificaterequests/service-account",
    }


def with_secret_old_object(review: bytes) -> bytes:
    """Return a review whose existing object has other values than the request brings along."""
    value = json.loads(review)
    old = value["request"].pop("oldObject", None)
    sent = sent_by_the_requester(value)
    if isinstance(old, dict):
        sent |= {str(old.get("apiVersion")), str(old.get("kind"))}

    def renamed(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: renamed(held) for key, held in inner.items()}
        if isinstance(inner, list):
            return [renamed(held) for held in inner]
        return SECRET + inner if isinstance(inner, str) and inner and inner not in sent else inner

    value["request"]["oldObject"] = renamed(old)
    return json.dumps(value).encode()


@pytest.mark.parametrize("file", SUITES)
def test_no_answer_holds_a_value_of_the_existing_object(file: str) -> None:
    told: Counter[str] = Counter()
    for case, own, listers in judged(file, EVERYTHING):
        if "oldObject" not in json.loads(case.review)["request"]:
            continue
        request = admission.decode(with_secret_old_object(case.review))
        decision = settled(admission.evaluate(request, own, listers))
        if isinstance(decision, Denied):
            assert not any(SECRET.encode() in one for one in answers(request, decision)), decision
            told[decision.rule] += SECRET in decision.detail
    assert {rule for rule, count in told.items() if count} >= {
        "nodes/taints",
        "nodes/labels",
        "pods/delete-own",
    }


@pytest.mark.parametrize("file", ["named.jsonl", "random.jsonl"])
def test_no_opinion_says_the_same_whatever_the_cluster_holds(file: str) -> None:
    settings = Settings.for_version()
    refused = 0
    for case in cases(str(HERE / "authorizer" / file)):
        assert isinstance(case, AccessCase)
        features = {**settings.features, **case.features}
        asked = [event.subjectAccessReview for event in case.events if event.op == "review"]
        for review, row in zip(asked, judge_access_case(case, settings, Graph()), strict=True):
            assert isinstance(row, Result)
            if not row.allowed:
                empty = authorization.evaluate(authorization.decode(review), Graph(), features)
                assert row.message == empty.reason
                refused += 1
    assert refused > 500
