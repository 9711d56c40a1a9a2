"""The artefacts of a release, built once into ``dist/``."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from noderestrict import __version__
from tests.containers.images import Builder, node_root
from tests.e2e.helm import helm_binary
from tests.release.oci import Image, unpacked
from tests.release.tools import tool

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
    """Return a folder with the image: that in LAYOUT, or built on stand-ins for its bases."""
    if given := os.environ.get("LAYOUT"):
        return shutil.copytree(given, dist / "image")
    if os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("debootstrap")):
        pytest.skip("the image is not checked: that needs LAYOUT, or root, buildah and debootstrap")
    builder = Builder(node_root(), ())
    builder.layout(builder.product(), dist / "image")
    return dist / "image"


@pytest.fixture(scope="session")
def images(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    """Return the image, unpacked, of each architecture."""
    return unpacked(layout, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def bills(layout: Path, images: list[Image], dist: Path) -> dict[str, Path]:
    """Return the bill of materials of the image for each architecture, as a scanner finds it."""
    found = {}
    for one in images:
        path = dist / f"noderestrict-{__version__}-image-{one.architecture}.cdx.json"
        run(tool("syft"), "scan", f"oci-dir:{layout}", "--platform", f"linux/{one.architecture}",
            "--source-name", "noderestrict", "--source-version", __version__,
            "--output", f"cyclonedx-json={path}")  # fmt: skip
        found[one.architecture] = path
    return found


@pytest.fixture(scope="session")
def chart(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the packed chart."""
    helm, folder = helm_binary(), tmp_path_factory.mktemp("chart")
    noderestrict = Path(sys.executable).with_name("noderestrict")
    run(noderestrict, "render", "--image", os.environ["IMAGE"], folder)
    run(helm, "lint", "--strict", folder / "chart")
    run(helm, "package", folder / "chart", "--destination", dist)
    return dist / f"noderestrict-{__version__}.tgz"
