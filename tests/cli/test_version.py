"""The version says what a copy is, and which Kubernetes it knows."""

import json
from pathlib import Path

import pytest

import noderestrict
from noderestrict import build
from noderestrict.cli import main
from noderestrict.policy.features import GATES, defaults
from noderestrict.policy.releases import LATEST_MINOR


def version(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["version", *flags]) == 0
    return capsys.readouterr().out


def test_people_read_program_and_version_first(capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = version(capsys).splitlines()
    assert first == f"noderestrict {noderestrict.__version__}"
    rows = dict(line.split(maxsplit=1) for line in rest if line.startswith("  "))
    assert rows["Kubernetes"] == f"1.25 to 1.{LATEST_MINOR}"
    assert {gate: rows[gate] == "on" for gate in GATES} == defaults(LATEST_MINOR)
    assert all(len(line) <= 80 for line in rest)


def test_the_flag_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    text = version(capsys)
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == text


def test_programs_get_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(version(capsys, "-o", "json"))
    assert found["version"] == noderestrict.__version__
    assert found["kubernetes"] == {"oldest": "1.25", "newest": f"1.{LATEST_MINOR}"}
    assert found["featureGates"] == defaults(LATEST_MINOR)
    assert set(found["build"]) == {"commit", "date"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"commit": "0a1b2c3", "date": "2026-01-02T03:04:05Z"}', "0a1b2c3, 2026-01-02T03:04:05Z"),
        ('{"commit": "0a1b2c3"}', "0a1b2c3"),
        ("{", "from source"),
        ("[]", "from source"),
        (None, "from source"),
    ],
)
def test_the_build_is_what_the_builder_wrote(
    text: str | None,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if text is not None:
        (tmp_path / build.FILE).write_text(text)
    monkeypatch.setattr(build, "files", lambda _package: tmp_path)
    assert f" {shown}\n" in version(capsys)
