"""Read the manifests that are plain YAML, in ``data``.

What is in ``data/manifests`` is rendered as it is; code completes the other files.
"""

import functools
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import msgspec
import yaml

from noderestrict.render.names import Installation

Object = dict[str, Any]

#: libyaml's is ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DATA = files("noderestrict.render") / "data"
_DEFAULT = Installation()


def documents(path: str, installation: Installation = _DEFAULT) -> list[Object]:
    """Return the objects of a file.

    Args:
        path: below ``data``.
        installation: what the words in capitals stand for.
    """
    return parsed(text(path, installation))


def parsed(content: str) -> list[Object]:
    """Return the objects in YAML that was rendered here; no two callers share one."""
    found: list[Object] = msgspec.json.decode(_as_json(content))
    return found


# Overlays share most of their files, and JSON is read many times faster than YAML.
@functools.lru_cache(maxsize=512)
def _as_json(content: str) -> bytes:
    return msgspec.json.encode(loaded(content))


def loaded(content: str) -> list[Object]:
    """Return the objects in YAML of any size.

    Raises:
        yaml.YAMLError: it is none.
    """
    return [one for one in yaml.load_all(content, _Loader) if one]


def text(path: str, installation: Installation = _DEFAULT) -> str:
    """Return the text of a file.

    Args:
        path: below ``data``.
        installation: what the words in capitals stand for.
    """
    words = installation.words()
    pattern = rf"\b({'|'.join(words)})\b"
    found = _DATA.joinpath(path).read_text("utf-8")
    return re.sub(pattern, lambda word: words[word[0]], found)


def complete_files() -> Iterator[str]:
    """Yield the paths of the files below ``data/manifests`` that need no completion."""
    return _files(_DATA / "manifests", "")


def chart_files() -> Iterator[str]:
    """Yield the paths of the files below ``data/chart``."""
    return _files(_DATA / "chart", "")


def _files(folder: Traversable, path: str) -> Iterator[str]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}"
