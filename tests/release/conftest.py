"""The artefacts of a release, built once into ``dist/``."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.containers.images import Builder, node_root
from tests.release.oci import Image, unpacked

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Run a command, and return what it prints; its errors fail the test."""
    done = subprocess.run(
        [str(one) for one in command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def dist() -> Path:
    """Return the folder of the artefacts, emptied."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    return DIST


@pytest.fixture(scope="session")
def packages(dist: Path) -> tuple[Path, Path]:
    """Return the sdist, and the wheel that was built from it."""
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def installed(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of an environment that has only the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    bin_ = folder / "bin"
    run(bin_ / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "-c", ROOT / "requirements.txt", packages[1])  # fmt: skip
    return bin_


@pytest.fixture(scope="session")
def layout(dist: Path) -> Path:
    """Return a folder with the image: LAYOUT, or built on stand-ins, which need no registry."""
    if given := os.environ.get("LAYOUT"):
        return Path(given)
    if os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("debootstrap")):
        pytest.skip("the image is not checked: that needs LAYOUT, or root, buildah and debootstrap")
    builder = Builder(node_root(), ())
    builder.layout(builder.product(), dist / "image")
    return dist / "image"


@pytest.fixture(scope="session")
def images(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    """Return the image, unpacked, of each architecture."""
    return unpacked(layout, tmp_path_factory.mktemp("images"))
