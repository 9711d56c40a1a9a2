"""Certificates as files."""

from pathlib import Path

import pytest

from noderestrict.cli import main


def certs(action: str, folder: Path, *flags: str) -> int:
    return main(["certs", action, "--directory", str(folder), *flags])


def test_bootstrap_makes_a_pair_that_check_accepts_and_does_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certs("check", tmp_path) == 1
    assert "there is no certificate" in capsys.readouterr().out
    assert certs("bootstrap", tmp_path) == 0
    assert certs("check", tmp_path) == 0
    before = (tmp_path / "tls.crt").read_bytes()
    assert certs("bootstrap", tmp_path) == 0
    assert (tmp_path / "tls.crt").read_bytes() == before
    assert certs("rotate", tmp_path) == 0
    assert (tmp_path / "tls.crt").read_bytes() != before


def test_what_expires_soon_or_is_for_other_names_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certs("bootstrap", tmp_path, "--lifetime", "10") == 0
    assert certs("check", tmp_path) == 1
    assert "expires at" in capsys.readouterr().out
    assert certs("check", tmp_path, "--renew-before", "5") == 0
    assert certs("check", tmp_path, "--renew-before", "5", "--dns-names", "other.example") == 1
    assert "other.example" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--secret", "tls"), "'tls' is not NAMESPACE/NAME"),
        (("--directory", "x", "--lifetime", "0"), "'0' is not a number of days"),
        (("--directory", "x", "--lifetime", "²"), "'²' is not a number of days"),
        (("--directory", "x", "--wait", "nan"), "'nan' is not a number of seconds"),
        (("--directory", "x", "--wait", "-1"), "'-1' is not a number of seconds"),
        (("--directory", "x", "--served-at", "host"), "'host' is not HOST:PORT"),
        ((), "one of the arguments --secret --directory is required"),
    ],
)
def test_bad_flags_are_named(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], named: str
) -> None:
    with pytest.raises(SystemExit):
        main(["certs", "rotate", *flags])
    assert named in capsys.readouterr().err
