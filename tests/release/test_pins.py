"""What a release is built from is pinned, and Dependabot sees each pin."""

import re
from pathlib import Path

import pytest
import yaml

from tests.release.provenance import PINNED

ROOT = Path(__file__).parents[2]
#: What uploads the wheel.
UPLOADS = "/tests/assets/twine"


def dependabot() -> set[tuple[str, str]]:
    """Return ecosystems that Dependabot looks at, each with a folder."""
    value = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    return {
        (one["package-ecosystem"], folder)
        for one in value["updates"]
        for folder in one.get("directories", [one.get("directory")])
    }


def test_the_image_starts_from_digests_where_dependabot_sees_them() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    stages = [one["stage"] for line in lines if (one := PINNED.fullmatch(line))]
    arguments = dict(line[4:].split("=") for line in lines if re.match("ARG .*_IMAGE", line))
    assert sorted(arguments.values()) == sorted(stages)
    others = [one for one in lines if one.startswith("FROM ") and not PINNED.fullmatch(one)]
    assert [one.split()[1] for one in others] == [f"${{{one}}}" for one in arguments]
    assert ("docker", "/") in dependabot()


def requirements(folder: str) -> list[str]:
    text = (ROOT / folder[1:] / "requirements.txt").read_text()
    return [one for one in text.splitlines() if not one.startswith("#")]


@pytest.mark.parametrize(
    ("folder", "hashes"),
    [("/", ""), ("/tests/assets/checkov", ""), (UPLOADS, "( --hash=sha256:[0-9a-f]{64})+")],
)
def test_dependabot_sees_the_pins_of_python_packages(folder: str, hashes: str) -> None:
    lines = requirements(folder)
    assert lines
    pinned = re.compile(rf"[\w.-]+==[\w.]+{hashes}")
    assert [one for one in lines if not pinned.fullmatch(one)] == []
    assert ("pip", folder) in dependabot()


def test_what_uploads_the_wheel_is_what_checked_it() -> None:
    uploads = {one.split()[0] for one in requirements(UPLOADS)}
    assert uploads <= set(requirements("/"))
    assert any(one.startswith("twine==") for one in uploads)


def test_dependabot_sees_the_pins_of_actions_and_of_what_publishes() -> None:
    assert {("github-actions", "/"), ("gomod", "/tests/assets/publish")} <= dependabot()
