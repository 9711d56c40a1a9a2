"""The image that the Dockerfile makes, on stand-ins for its bases: they need no registry."""

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noderestrict import __version__
from tests.containers.images import Builder, node_root

pytestmark = pytest.mark.release

_MIB = 1 << 20
#: Mounts a folder read-only, and runs a command in it as the image's user.
_RUN = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && root=$1 user=$2 && shift 2 \
    && exec env -i "$@" chroot --userspec="$user" "$root" /opt/noderestrict/bin/python \
        -m noderestrict --version
"""


@dataclass(frozen=True)
class Image:
    """An unpacked image: its files, and how it is run."""

    root: Path
    config: dict[str, Any]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    if os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("debootstrap")):
        pytest.skip("the image is not checked: that needs root, buildah and debootstrap")
    archive = Builder(node_root(), ()).product()
    folder = tmp_path_factory.mktemp("image")
    root = folder / "root"
    root.mkdir()
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (manifest,) = json.loads((folder / "manifest.json").read_text())
    for layer in manifest["Layers"]:
        with tarfile.open(folder / layer) as files:
            files.extractall(root, filter="tar")
    return Image(root, json.loads((folder / manifest["Config"]).read_text())["config"])


def test_the_image_runs_as_nobody_in_particular_and_on_a_read_only_root(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _RUN, "sh", image.root, image.config["User"],
         *image.config["Env"]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(f"noderestrict {__version__}"), done.stderr


def test_the_image_has_no_shell_no_installer_and_nothing_that_changes_users(image: Image) -> None:
    files = [one for one in image.root.rglob("*") if one.is_file()]
    programs = {one.name for one in files if one.stat().st_mode & 0o111}
    assert "python" in programs
    assert not programs & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "pip", "pip3"}
    special = [one for one in image.root.rglob("*") if not one.is_symlink()
               and one.stat().st_mode & 0o6000 and one.is_file()]  # fmt: skip
    assert special == []


def test_all_modules_of_the_image_are_compiled(image: Image) -> None:
    package = next((image.root / "opt/noderestrict/lib").glob("python3.*/site-packages"))
    modules = list((package / "noderestrict").rglob("*.py"))
    assert modules
    for one in modules:
        assert list((one.parent / "__pycache__").glob(f"{one.stem}.*.pyc")), one


def test_the_unpacked_image_takes_less_than_150_mib(image: Image) -> None:
    files = [one for one in image.root.rglob("*") if one.is_file() and not one.is_symlink()]
    sizes = {(one.stat().st_dev, one.stat().st_ino): one.stat().st_size for one in files}
    size = sum(sizes.values()) / _MIB
    print(f"unpacked image: {size:.0f} MiB")
    assert size < 150
