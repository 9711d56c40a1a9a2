"""Images in a folder, as OCI lays them out."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Any

from tests.containers.images import RECORDS


@dataclass(frozen=True)
class Image:
    """An unpacked image.

    Attributes:
        architecture: of its programs, such as amd64.
        config: its user, its environment, and how it is run.
        root: its files.
    """

    architecture: str
    config: dict[str, Any]
    root: Path

    @property
    def site_packages(self) -> Path:
        """Where its Python packages are."""
        (folder,) = (self.root / "opt/noderestrict/lib").glob("python3.*/site-packages")
        return folder

    def debian_packages(self) -> set[tuple[str, str]]:
        """Return names and versions of the Debian packages that it says it has."""
        folder = self.root / RECORDS
        # Distroless images have checksums beside.
        files = [one for one in folder.iterdir() if one.suffix != ".md5sums"]
        found = [Parser().parsestr(one.read_text()) for one in files]
        return {(one["Package"], one["Version"]) for one in found}


def unpacked(layout: Path, folder: Path) -> list[Image]:
    """Unpack the images of a layout, one for each architecture, below a folder."""
    found = []
    for manifest in _manifests(layout, json.loads((layout / "index.json").read_text())):
        config = _read(layout, manifest["config"])
        root = folder / config["architecture"]
        root.mkdir()
        for layer in manifest["layers"]:
            with tarfile.open(_blob(layout, layer)) as files:
                files.extractall(root, filter="tar")
        found.append(Image(config["architecture"], config["config"], root))
    return found


def _manifests(layout: Path, index: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in index["manifests"]:
        value = _read(layout, one)
        if "manifests" in value:
            yield from _manifests(layout, value)
        else:
            yield value


def _read(layout: Path, descriptor: dict[str, str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_blob(layout, descriptor).read_text())
    return value


def _blob(layout: Path, descriptor: dict[str, str]) -> Path:
    return layout.joinpath("blobs", *descriptor["digest"].split(":"))
