"""The chart, packed with the name of the image that the release has."""

import os
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.e2e.helm import helm_binary
from tests.release.conftest import run

pytestmark = pytest.mark.release


def test_the_packed_chart_installs_the_image_of_the_release(chart: Path) -> None:
    with tarfile.open(chart) as packed:
        assert {Path(one).parts[0] for one in packed.getnames()} == {"noderestrict"}
    objects = yaml.safe_load_all(run(helm_binary(), "template", "name", chart))
    found: set[str] = set()
    for value in objects:
        if value and "template" in value.get("spec", {}):
            found.update(one["image"] for one in value["spec"]["template"]["spec"]["containers"])
    assert found == {os.environ["IMAGE"]}
