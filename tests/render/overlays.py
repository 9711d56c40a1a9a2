"""What ``kubectl kustomize`` makes of the rendered overlays, without kubectl."""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import jsonpatch
import yaml

from noderestrict.render.manifests import OVERLAYS, manifests

__all__ = ["OVERLAYS"]

Object = dict[str, Any]
FILES = manifests()
PARTS = ("install", "enforce")


def build(
    overlay: str,
    components: Iterable[str] = (),
    files: Mapping[str, str] = FILES,
    parts: Iterable[str] = PARTS,
) -> list[Object]:
    """Return the objects of an overlay, changed by components.

    Args:
        overlay: its name.
        components: their names.
        files: as rendered.
        parts: kustomizations of the overlay.
    """
    objects = [
        one for part in parts for one in _build(PurePosixPath("overlays") / overlay / part, files)
    ]
    for component in components:
        folder = PurePosixPath("components") / component
        kustomization = yaml.safe_load(files[f"{folder}/kustomization.yaml"])
        objects += _resources(folder, kustomization, files)
        objects = _patched(objects, kustomization)
    return objects


def _build(folder: PurePosixPath, files: Mapping[str, str]) -> list[Object]:
    kustomization = yaml.safe_load(files[f"{folder}/kustomization.yaml"])
    return _patched(_resources(folder, kustomization, files), kustomization)


def _resources(
    folder: PurePosixPath, kustomization: Object, files: Mapping[str, str]
) -> list[Object]:
    objects: list[Object] = []
    for resource in kustomization.get("resources", ()):
        path = _joined(folder, resource)
        if str(path) in files:
            objects += [one for one in yaml.safe_load_all(files[str(path)]) if one]
        else:
            objects += _build(path, files)
    return objects


def _joined(folder: PurePosixPath, resource: str) -> PurePosixPath:
    parts = list(folder.parts)
    for part in PurePosixPath(resource).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def _patched(objects: list[Object], kustomization: Object) -> list[Object]:
    # YAML aliases would let a patch of one webhook change all.
    objects = [copy.deepcopy(one) for one in objects]
    for entry in kustomization.get("patches", ()):
        patch = yaml.safe_load(entry["patch"])
        matching = [one for one in objects if _is(one, entry["target"])]
        for one in matching:
            jsonpatch.apply_patch(one, patch, in_place=True)
    return objects


def _is(value: Object, target: Mapping[str, str]) -> bool:
    # A kind may be a pattern, such as Deployment|DaemonSet.
    matches = re.fullmatch(target["kind"], value["kind"])
    return bool(matches) and value["metadata"]["name"] == target["name"]
