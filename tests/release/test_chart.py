"""The chart, packed with the name of the image that the release has."""

import os
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from noderestrict import __version__
from tests.e2e.helm import helm_binary
from tests.release.conftest import run

pytestmark = pytest.mark.release


def test_the_packed_chart_installs_the_image_of_the_release(dist: Path, tmp_path: Path) -> None:
    helm, image = helm_binary(), os.environ["IMAGE"]
    noderestrict = Path(sys.executable).with_name("noderestrict")
    run(noderestrict, "render", "--image", image, tmp_path)
    run(helm, "lint", "--strict", tmp_path / "chart")
    run(helm, "package", tmp_path / "chart", "--destination", dist)
    packed = dist / f"noderestrict-{__version__}.tgz"
    with tarfile.open(packed) as chart:
        assert {Path(one).parts[0] for one in chart.getnames()} == {"noderestrict"}
    objects = yaml.safe_load_all(run(helm, "template", "name", packed))
    found: set[str] = set()
    for value in objects:
        if value and "template" in value.get("spec", {}):
            found.update(one["image"] for one in value["spec"]["template"]["spec"]["containers"])
    assert found == {image}
