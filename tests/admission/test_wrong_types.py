"""Objects whose fields have wrong types: nothing crashes, and no refusal turns into an allowance.

The in-tree plugin refuses such objects whatever the field, since they do not decode. No API server
sends one: it has decoded them before. The rules read what they judge, and skip the rest.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from noderestrict import admission
from noderestrict.policy.decision import Allowed, Denied, Question
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.reviews import circumstances
from noderestrict.replay.state import load_state

CONFORMANCE = Path(__file__).parents[1] / "conformance"
WRONG = ({"zq": [1]}, "zq", 7, [["zq"]], True)
#: One mutation of so many is tried, another one in each case.
EVERY = 61


def holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each object or list in a JSON value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from holders(value[key])


def mutations(review: Any) -> Iterator[None]:
    """Give a field of the objects another type, and yield while it has it."""
    request = review["request"]
    for field in ("object", "oldObject"):
        if not isinstance(request.get(field), dict):
            continue
        for holder, key in list(holders(request[field])):
            was = holder[key]
            for wrong in WRONG:
                # Another type may be the right one where the case itself has a wrong one.
                if not isinstance(wrong, type(was)) and was is not None and key != "metadata":
                    holder[key] = wrong
                    yield
            holder[key] = was


@pytest.mark.parametrize("file", ["admission/generated.jsonl", "captured/captured.jsonl"])
def test_a_field_of_another_type_opens_nothing(file: str) -> None:
    listers = load_state([str((CONFORMANCE / file).parent / "state.json")])
    tried = opened = 0
    for number, case in enumerate(cases(str(CONFORMANCE / file))):
        assert isinstance(case, Case)
        settings, own = circumstances(case, Settings.for_version(), listers)
        review = json.loads(case.review)
        refused = not isinstance(
            admission.evaluate(admission.decode(case.review), settings, own), Allowed
        )
        for _ in islice(mutations(review), number % EVERY, None, EVERY):
            tried += 1
            try:
                request = admission.decode(json.dumps(review).encode())
            except admission.ReviewError:
                continue
            decision = admission.evaluate(request, settings, own)
            assert isinstance(decision, Allowed | Denied | Question)
            if refused and isinstance(decision, Allowed):
                opened += 1
    assert tried > 1_000
    assert opened == 0
