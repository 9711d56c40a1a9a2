"""The bills of materials of the image."""

import json
from importlib.metadata import distributions
from pathlib import Path

import pytest

from noderestrict import __version__
from tests.release.oci import Image

pytestmark = pytest.mark.release


def test_the_bill_names_python_its_packages_and_the_debian_packages(
    images: list[Image], bills: dict[str, Path]
) -> None:
    for image in images:
        components = json.loads(bills[image.architecture].read_text())["components"]
        found = {(one["name"].lower(), one["version"]) for one in components if "version" in one}
        packages = distributions(path=[str(image.site_packages)])
        wanted = {(one.name.lower().replace("_", "-"), one.version) for one in packages}
        assert ("noderestrict", __version__) in wanted
        assert found >= wanted | image.debian_packages()
        minor = image.site_packages.parent.name.removeprefix("python")
        assert any(name == "python" and version.startswith(f"{minor}.") for name, version in found)


def test_the_openssl_that_a_package_brings_stands_in_a_bill_of_its_own(images: list[Image]) -> None:
    for image in images:
        bills = [
            json.loads(one.read_text())
            for one in image.site_packages.glob("cryptography-*.dist-info/sboms/*.json")
        ]
        assert any(part["name"] == "openssl" for bill in bills for part in bill["components"])
