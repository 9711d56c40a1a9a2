"""``make image``, with stand-ins for the tools."""

import shutil
import subprocess
from pathlib import Path

import pytest

from noderestrict.render.workload import IMAGE
from tests.containers.images import ROOT

#: The defaults: some versions of buildah and podman miss stages that only defaults name.
BASES = "--build-arg BUILD_IMAGE=pinned-build --build-arg RUN_IMAGE=pinned-run"


@pytest.mark.parametrize(
    ("tools", "built"),
    [
        ("docker podman buildah", f"docker build --tag {IMAGE} {BASES} ."),
        # A client without an engine is none.
        ("-docker podman buildah", f"podman build --tag docker.io/library/{IMAGE} {BASES} ."),
        ("buildah", f"buildah build --tag docker.io/library/{IMAGE} {BASES} ."),
    ],
)
def test_the_image_that_the_manifests_name_is_built_with_what_there_is(
    tmp_path: Path, tools: str, built: str
) -> None:
    assert make_image(tmp_path, tools) == built
    assert make_image(tmp_path, tools, "IMAGE=a.example/b:1").endswith(
        f"--tag a.example/b:1 {BASES} ."
    )
    chosen = make_image(tmp_path, tools, "BUILDER=buildah", "IMAGE_ARGS=--quiet")
    assert chosen == f"buildah build --tag docker.io/library/{IMAGE} {BASES} --quiet ."


def make_image(folder: Path, tools: str, *variables: str) -> str:
    """Return what ``make image`` runs where only some tools are, one with "-" out of order."""
    path = folder / "bin"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name in ("sh", "sed", "make"):
        found = shutil.which(name)
        assert found is not None
        (path / name).symlink_to(found)
    for tool in {*tools.split(), "buildah"}:
        file = path / tool.removeprefix("-")
        file.write_text(f"#!/bin/sh\n[ $1 = build ] || exit {int(tool.startswith('-'))}\n")
        file.chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "image", *variables], cwd=ROOT,
        capture_output=True, text=True, check=True, env={"PATH": str(path)},
    )  # fmt: skip
    return done.stderr.strip().removeprefix("+ ").strip()


def test_without_a_tool_the_image_is_not_built(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        make_image(tmp_path, "", "BUILDER=", "PATH=/nowhere", "SHELL=/bin/sh")
    assert "needs docker, podman or buildah" in error.value.stderr
