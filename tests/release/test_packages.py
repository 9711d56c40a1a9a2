"""The wheel and the sdist."""

import json
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

from noderestrict import __version__
from tests.release.conftest import ROOT, run
from tests.release.provenance import PINNED

pytestmark = pytest.mark.release


def test_the_wheel_says_what_it_is(packages: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(packages[1]) as wheel:
        text = wheel.read(f"noderestrict-{__version__}.dist-info/METADATA").decode()
        licence = wheel.read(f"noderestrict-{__version__}.dist-info/licenses/LICENSE")
    metadata = Parser().parsestr(text)
    assert (metadata["Name"], metadata["Version"]) == ("noderestrict", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert licence == (ROOT / "LICENSE").read_bytes()
    run(sys.executable, "-m", "twine", "check", "--strict", *packages)


def test_the_sdist_has_what_its_tests_need_and_nothing_untracked(
    packages: tuple[Path, Path],
) -> None:
    with tarfile.open(packages[0]) as sdist:
        names = {
            str(PurePosixPath(*PurePosixPath(one.name).parts[1:]))
            for one in sdist.getmembers()
            if one.isfile()
        }
    tracked = set(run("git", "ls-files").split("\n"))
    assert names - tracked == {"PKG-INFO"}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert any(one.startswith("tests/conformance/") for one in names)


def test_the_installed_wheel_renders_the_manifests_of_this_commit(
    installed: Path, tmp_path: Path
) -> None:
    run(installed / "noderestrict", "render", tmp_path)
    names = {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file()}
    tracked = run("git", "ls-files", "manifests").split()
    assert names == {one.removeprefix("manifests/") for one in tracked}
    assert all(
        (tmp_path / one).read_bytes() == (ROOT / "manifests" / one).read_bytes() for one in names
    )


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_the_image_takes_wheels_alone(
    packages: tuple[Path, Path], tmp_path: Path, machine: str
) -> None:
    bases = [PINNED.fullmatch(one) for one in (ROOT / "Dockerfile").read_text().splitlines()]
    (tag,) = [one["tag"] for one in bases if one and one["name"].endswith("/python")]
    run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--dry-run", "--target", tmp_path, "--only-binary", ":all:",
        "--python-version", tag.partition("-")[0], "--platform", f"manylinux2014_{machine}",
        "-c", ROOT / "requirements.txt", packages[1])  # fmt: skip


def test_the_bill_of_materials_names_each_package_that_the_wheel_needs(
    installed: Path, dist: Path
) -> None:
    path = dist / f"noderestrict-{__version__}.cdx.json"
    run(Path(sys.executable).with_name("cyclonedx-py"), "environment", "--pyproject",
        ROOT / "pyproject.toml", "--mc-type", "application", "--output-reproducible",
        "--output-file", path, installed / "python")  # fmt: skip
    bill = json.loads(path.read_text())
    listed = json.loads(run(installed / "python", "-m", "pip", "list", "--format", "json"))
    versions = {one["name"].lower(): one["version"] for one in bill["components"]}
    wanted = {one["name"].lower(): one["version"] for one in listed}
    wanted.pop("noderestrict")
    assert versions.items() >= wanted.items()
    assert bill["metadata"]["component"]["name"] == "noderestrict"
