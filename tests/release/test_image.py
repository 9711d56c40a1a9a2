"""The image that the Dockerfile makes."""

import os
import platform
import subprocess
from importlib.metadata import distributions

import pytest

from noderestrict import __version__
from tests.release.oci import Image

pytestmark = pytest.mark.release

_MIB = 1 << 20
#: Mounts a folder read-only, and runs a command in it as the image's user.
_RUN = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && root=$1 user=$2 && shift 2 \
    && exec env -i "$@" chroot --userspec="$user" "$root" /opt/noderestrict/bin/python \
        -m noderestrict --version
"""
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def test_the_image_runs_as_nobody_in_particular_and_on_a_read_only_root(
    images: list[Image],
) -> None:
    assert {one.config["User"] for one in images} == {"65532:65532"}
    (image,) = [one for one in images if _MACHINES[one.architecture] == platform.machine()]
    root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    done = subprocess.run(
        [*root, "unshare", "--mount", "sh", "-c", _RUN, "sh", image.root, image.config["User"],
         *image.config["Env"]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(f"noderestrict {__version__}"), done.stderr


def test_the_image_has_no_shell_no_installer_and_nothing_that_changes_users(
    images: list[Image],
) -> None:
    for image in images:
        files = [one for one in image.root.rglob("*") if one.is_file() and not one.is_symlink()]
        programs = {one.name for one in files if one.stat().st_mode & 0o111}
        assert "python" in programs
        assert not programs & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "pip", "pip3"}
        assert [one for one in files if one.stat().st_mode & 0o6000] == []
        packages = {one.name for one in distributions(path=[str(image.site_packages)])}
        assert "noderestrict" in packages
        assert not packages & {"pip", "hatchling", "packaging", "pathspec", "pluggy"}


def test_all_modules_of_the_image_are_compiled(images: list[Image]) -> None:
    for image in images:
        modules = list((image.site_packages / "noderestrict").rglob("*.py"))
        assert modules
        for one in modules:
            assert list((one.parent / "__pycache__").glob(f"{one.stem}.*.pyc")), one


def test_the_unpacked_image_takes_less_than_150_mib(images: list[Image]) -> None:
    for image in images:
        files = [one for one in image.root.rglob("*") if one.is_file() and not one.is_symlink()]
        sizes = {(one.stat().st_dev, one.stat().st_ino): one.stat().st_size for one in files}
        size = sum(sizes.values()) / _MIB
        print(f"unpacked image for {image.architecture}: {size:.0f} MiB")
        assert size < 150


def test_scanners_find_the_debian_package_of_each_library(images: list[Image]) -> None:
    for image in images:
        names = {name for name, _ in image.debian_packages()}
        libraries = {one.name for one in (image.root / "usr/lib/noderestrict").iterdir()}
        owners = {
            "libcrypto.so.3": "libssl3",
            "libffi.so.8": "libffi8",
            "libsqlite3.so.0": "libsqlite3-0",
            "libssl.so.3": "libssl3",
            "libz.so.1": "zlib1g",
        }
        assert libraries >= owners.keys()
        assert not [one for one in libraries if one.startswith(("libreadline", "libgdbm"))]
        assert names >= set(owners.values())
