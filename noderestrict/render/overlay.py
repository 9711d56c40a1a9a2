"""What ``kubectl kustomize`` makes of the rendered overlays, without kubectl."""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import jsonpatch

from noderestrict.render.load import Object, parsed

#: The kustomizations of an overlay.
PARTS = ("install", "enforce")
_COMPONENTS = PurePosixPath("components")


def components(files: Mapping[str, str]) -> list[str]:
    """Return the names of the components that files contain."""
    found = (PurePosixPath(path).parts for path in files)
    return sorted({parts[1] for parts in found if parts[0] == str(_COMPONENTS)})


def build(
    overlay: str,
    files: Mapping[str, str],
    with_components: Iterable[str] = (),
    parts: Iterable[str] = PARTS,
) -> list[Object]:
    """Return the objects of an overlay, changed by components.

    Args:
        overlay: its name.
        files: as rendered.
        with_components: their names.
        parts: kustomizations of the overlay.
    """
    objects = [
        one for part in parts for one in _build(PurePosixPath("overlays") / overlay / part, files)
    ]
    for component in with_components:
        objects = with_component(component, files, objects)
    return objects


def with_component(
    component: str, files: Mapping[str, str], objects: Iterable[Object]
) -> list[Object]:
    """Return a copy of objects, changed by a component, and then the component's own objects.

    Args:
        component: its name.
        files: as rendered.
        objects: of an overlay.
    """
    return _completed(_COMPONENTS / component, files, objects)


def _build(folder: PurePosixPath, files: Mapping[str, str]) -> list[Object]:
    return _completed(folder, files, [])


def _completed(
    folder: PurePosixPath, files: Mapping[str, str], objects: Iterable[Object]
) -> list[Object]:
    """Return objects with the resources and patches of a kustomization."""
    (kustomization,) = parsed(files[f"{folder}/kustomization.yaml"])
    found = [*copy.deepcopy([*objects]), *_resources(folder, kustomization, files)]
    for entry in kustomization.get("patches", ()):
        operations: list[Any] = parsed(entry["patch"])
        patch = jsonpatch.JsonPatch(*operations)
        for one in found:
            if _is(one, entry["target"]):
                patch.apply(one, in_place=True)
    return found


def _resources(
    folder: PurePosixPath, kustomization: Object, files: Mapping[str, str]
) -> list[Object]:
    objects: list[Object] = []
    for resource in kustomization.get("resources", ()):
        path = _joined(folder, resource)
        if str(path) in files:
            objects += parsed(files[str(path)])
        else:
            objects += _build(path, files)
    return [*objects, *_generated(folder, kustomization, files)]


def _generated(
    folder: PurePosixPath, kustomization: Object, files: Mapping[str, str]
) -> Iterator[Object]:
    """Yield the ConfigMaps that a kustomization makes of files."""
    for given in kustomization.get("configMapGenerator", ()):
        metadata = {key: given[key] for key in ("name", "namespace")}
        labels = given.get("options", {}).get("labels", {})
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**metadata, "labels": dict(labels)},
            "data": {name: files[str(_joined(folder, name))] for name in given["files"]},
        }


def _joined(folder: PurePosixPath, resource: str) -> PurePosixPath:
    parts = list(folder.parts)
    for part in PurePosixPath(resource).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def _is(value: Object, target: Mapping[str, str]) -> bool:
    # A kind may be a pattern, such as Deployment|DaemonSet.
    matches = re.fullmatch(target["kind"], value["kind"])
    return bool(matches) and value["metadata"]["name"] == target["name"]
