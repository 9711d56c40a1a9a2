"""What a worker of a run with several sends of its reports."""

from tests.conftest import encodable


def test_a_report_is_sent_as_it_is_but_for_what_is_no_text() -> None:
    skipped = ("tests/a.py", 1, "Skipped: no shell")
    assert encodable({"longrepr": skipped, "when": None}) == {"longrepr": skipped, "when": None}
    sections = [["log", "name=\udcff"], {"\ud800": 0.5}]
    assert encodable(sections) == [["log", "name=?"], {"?": 0.5}]
