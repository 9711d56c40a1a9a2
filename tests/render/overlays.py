"""What ``kubectl kustomize`` makes of the rendered overlays, without kubectl."""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import jsonpatch
import yaml

from noderestrict.render.manifests import manifests

Object = dict[str, Any]
FILES = manifests()
OVERLAYS = ("audit", "cert-manager", "control-plane", "kind", "self-signed")


def build(
    overlay: str, components: Iterable[str] = (), files: Mapping[str, str] = FILES
) -> list[Object]:
    """Return the objects of an overlay, changed by components."""
    objects = _build(PurePosixPath("overlays") / overlay, files)
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
        target = entry.get("target") or {
            "kind": patch["kind"],
            "name": patch["metadata"]["name"],
        }
        matching = [one for one in objects if _is(one, target)]
        if "target" in entry:
            for one in matching:
                jsonpatch.apply_patch(one, patch, in_place=True)
        else:
            assert patch["$patch"] == "delete"
            assert len(matching) == 1, patch
            objects = [one for one in objects if not _is(one, target)]
    return objects


def _is(value: Object, target: Mapping[str, str]) -> bool:
    # A kind may be a pattern, such as Deployment|DaemonSet.
    matches = re.fullmatch(target["kind"], value["kind"])
    return bool(matches) and value["metadata"]["name"] == target["name"]
