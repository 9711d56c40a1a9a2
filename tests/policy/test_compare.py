"""Comparisons that stop where enough is known."""

from collections.abc import Iterator

import pytest

from noderestrict.policy.compare import changed_keys, first_difference, listed

Labels = dict[str, str | None]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({}, {}, []),
        ({"a": None}, {"a": ""}, []),
        ({}, {"a": ""}, ["a"]),
        ({"a": ""}, {}, ["a"]),
        ({"a": "x", "b": "y"}, {"b": "z", "c": "x"}, ["b", "c", "a"]),
    ],
)
def test_keys_change_when_they_come_go_or_get_another_value(
    before: Labels, after: Labels, changed: list[str]
) -> None:
    assert list(changed_keys(before, after)) == changed


@pytest.mark.parametrize(
    ("before", "after", "index"),
    [
        (None, [], None),
        (["a", ""], ["a", None], None),
        (["a", "b"], ["a", "c"], 1),
        (["a"], ["a", "b"], 1),
        (["a", "b"], None, 0),
    ],
)
def test_lists_differ_at_the_first_item_of_another_meaning(
    before: list[str | None] | None, after: list[str | None] | None, index: int | None
) -> None:
    assert first_difference(before, after, lambda item: item or "") == index


def test_of_many_texts_the_first_are_listed_and_no_more_are_made() -> None:
    made = []

    def texts() -> Iterator[str]:
        for number in range(1_000):
            made.append(number)
            yield str(number)

    assert listed(texts()) == "0, 1, 2, 3, 4, 5, 6, 7, …"
    assert len(made) == 9
    assert listed(iter(["a", "b"])) == "a, b"
    assert listed(()) == ""
