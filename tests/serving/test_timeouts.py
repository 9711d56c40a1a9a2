"""The time-out of a request, as a client may write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noderestrict.serving.limits import parse_timeout


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("300ms", 0.3),
        (".5s", 0.5),
        ("0s", 0.0),
        ("1h", 3600.0),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("500000ns", 0.0005),
        ("1m1ms1us", 60.001001),
    ],
)
def test_a_duration_of_go_is_read(text: str, seconds: float) -> None:
    assert parse_timeout(text) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", ".s", "1..2s", "-1s", "1e5s", "nan", "inf", "\u0661s", "\u00b2s", "1 s", "5S"],
)
def test_what_is_none_is_no_duration(text: str) -> None:
    assert parse_timeout(text) is None


@given(st.text() | st.text("0123456789.hmnsu\u00b5", max_size=50))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    found = parse_timeout(text)
    assert found is None or found >= 0


def test_a_number_of_any_length_is_read() -> None:
    found = parse_timeout("9" * 10_000 + "s")
    assert found is not None
    assert found > 30
