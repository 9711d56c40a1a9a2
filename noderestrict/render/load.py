"""Read the manifests that are plain YAML, in ``data``.

What is in ``data/manifests`` is rendered as it is; code completes the other files.
"""

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

Object = dict[str, Any]

#: libyaml's is ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DATA = files("noderestrict.render") / "data"


def documents(path: str) -> list[Object]:
    """Return the objects of a file.

    Args:
        path: below ``data``.
    """
    return parsed(text(path))


def parsed(content: str) -> list[Object]:
    """Return the objects in YAML that was rendered here."""
    return [one for one in yaml.load_all(content, _Loader) if one]


def text(path: str) -> str:
    """Return the text of a file.

    Args:
        path: below ``data``.
    """
    return _DATA.joinpath(path).read_text("utf-8")


def complete_files() -> Iterator[str]:
    """Yield the paths of the files below ``data/manifests`` that need no completion."""
    return _files(_DATA / "manifests", "")


def _files(folder: Traversable, path: str) -> Iterator[str]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}"
