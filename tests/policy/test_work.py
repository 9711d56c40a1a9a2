"""The work of rules over the largest objects: bounded, whatever a node or tenant chose."""

import json
from typing import Any

import msgspec
import pytest

from noderestrict import admission
from noderestrict.api import corev1
from noderestrict.policy import semantic
from noderestrict.policy.decision import Allowed
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.quantity import parse_quantity
from noderestrict.policy.records import (
    ClaimRecord,
    CSIDriverRecord,
    PodRecord,
    Record,
    VolumeRecord,
    pod_record,
)
from noderestrict.policy.settings import Settings
from tests import largest
from tests.builders import (
    Object,
    assert_allowed,
    assert_denied,
    claim,
    judge,
    token_request,
    update_claim,
)
from tests.policy.work import steps

RULE = "persistentvolumeclaims/status-fields"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the quantities that are parsed from now on."""
    texts: list[str] = []

    def noting(text: str) -> int:
        texts.append(text)
        return parse_quantity(text)

    monkeypatch.setattr(semantic, "parse_quantity", noting)
    return texts


def with_requests(requests: dict[str, Any], **status: Any) -> Object:
    made = claim(**status)
    made["spec"]["resources"]["requests"] = requests
    return made


MANY = {f"example.com/{number}": f"{number}k" for number in range(60_000)}


def test_equal_quantities_are_not_parsed_however_many(parsed: list[str]) -> None:
    old, new = with_requests(MANY), with_requests(MANY, capacity={"storage": "2Gi"})
    assert_allowed(judge(update_claim(old, new)))
    assert not parsed


@pytest.mark.parametrize(
    "text", ["9" * 1_000_000, "1" + "0" * 5_000, "1e999999999", "0." + "1" * 5_000]
)
def test_an_equal_quantity_is_never_refused_whatever_it_is(text: str, parsed: list[str]) -> None:
    old, new = with_requests({"a": text}), with_requests({"a": text}, capacity={"storage": "2Gi"})
    assert_allowed(judge(update_claim(old, new)))
    assert not parsed


def test_of_equal_quantities_beside_another_only_that_one_is_parsed(parsed: list[str]) -> None:
    old = with_requests({f"{number}": "1Gi" for number in range(60_000)})
    new = json.loads(json.dumps(old))
    new["spec"]["resources"]["requests"]["7"] = "1024Mi"
    assert_allowed(judge(update_claim(old, new)))
    assert parsed == ["1Gi", "1024Mi"]


def test_too_many_quantities_of_another_spelling_are_refused(parsed: list[str]) -> None:
    old = with_requests({f"{number}": "1Gi" for number in range(5_000)})
    new = with_requests({f"{number}": "1024Mi" for number in range(5_000)})
    assert_denied(judge(update_claim(old, new)), RULE, "too many values to compare")
    assert len(parsed) <= 1_000


def test_a_changed_claim_of_any_size_is_refused_at_its_first_differences(parsed: list[str]) -> None:
    old, new = with_requests(MANY), with_requests(dict.fromkeys(MANY, "1"))
    assert_denied(judge(update_claim(old, new)), RULE)
    assert len(parsed) <= 20


def nested(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = {"equal": ["x" * 1_000] * 100, "deep": inner}
    return inner


def wide(value: Any, count: int) -> Object:
    return {f"k{number}": value for number in range(count)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (nested(200, 1), nested(200, 2)),
        (nested(900, 1), nested(900, None)),
        (wide(None, 100_000), wide("", 100_000)),
        (wide([None], 50_000), wide([{}], 50_000)),
        ([None] * 200_000, [""] * 200_000),
    ],
    ids=["deep", "deeper", "wide", "wide lists", "long"],
)
def test_a_comparison_ends_after_a_bounded_number_of_steps(before: Any, after: Any) -> None:
    old, new = claim(), claim()
    old["spec"]["unknown"], new["spec"]["unknown"] = before, after
    decision, count = steps(lambda: judge(update_claim(old, new)))
    assert_denied(decision, RULE)
    assert count < 200_000


SIZE = 20_000
SINGLE, DOUBLE = (list(largest.reviews(size)) for size in (SIZE, 2 * SIZE))


@pytest.mark.parametrize(
    ("single", "double"),
    [
        pytest.param(body, larger, id=name)
        for (name, *body), (_, *larger) in zip(SINGLE, DOUBLE, strict=True)
    ],
)
def test_judging_takes_a_few_steps_a_byte_and_grows_no_faster(
    single: tuple[bytes, Settings | None], double: tuple[bytes, Settings | None]
) -> None:
    _, small = steps(lambda: judge(*single))
    _, large = steps(lambda: judge(*double))

    assert large <= 2 * small + 1_000
    assert large <= 10 * len(double[0])


@pytest.mark.parametrize("name", [name for name, _ in largest.pods(100)])
def test_reducing_a_pod_takes_a_few_steps_a_byte(name: str) -> None:
    pod = msgspec.convert(dict(largest.pods(SIZE))[name], corev1.Pod)
    _, count = steps(lambda: pod_record(pod))

    assert count <= 2 * SIZE


class Counting(MemoryListers):
    """Notes every claim that is looked up."""

    def __init__(self, *records: Record) -> None:
        super().__init__(records)
        self.claims = 0

    def persistent_volume_claim(self, namespace: str, name: str) -> ClaimRecord | None:
        self.claims += 1
        return super().persistent_volume_claim(namespace, name)


def test_of_a_pod_with_thousands_of_claims_hundreds_are_looked_up() -> None:
    claims = tuple(f"c{number}" for number in range(18_000))
    pod = PodRecord("ns", "p1", "p1-uid", "n1", "sa1", audiences=("vault",), claims=claims)
    listers = Counting(pod)
    for audience, allowed in (("vault", True), ("bank", False)):
        request = admission.decode(token_request("p1", "p1-uid", audience))
        decision = admission.evaluate(request, Settings.for_version(), listers)
        assert isinstance(decision, Allowed) is allowed
    assert 100 <= listers.claims <= 1_000


def test_a_token_for_a_claim_after_many_others_is_allowed() -> None:
    claims = tuple(f"c{number}" for number in range(300))
    listers = Counting(
        PodRecord("ns", "p1", "p1-uid", "n1", "sa1", claims=claims),
        *(ClaimRecord("ns", claim, f"v-{claim}") for claim in claims),
        *(VolumeRecord(f"v-{claim}", "") for claim in claims[:-1]),
        VolumeRecord(f"v-{claims[-1]}", "csi.example.com"),
        CSIDriverRecord("csi.example.com", ("storage",)),
    )
    request = admission.decode(token_request("p1", "p1-uid", "storage"))
    assert_allowed(admission.evaluate(request, Settings.for_version(), listers))
