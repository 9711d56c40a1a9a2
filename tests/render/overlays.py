"""The rendered overlays, as ``kubectl kustomize`` builds them."""

from collections.abc import Iterable, Mapping
from typing import Any

from noderestrict.render import overlay
from noderestrict.render.manifests import OVERLAYS, manifests
from noderestrict.render.overlay import PARTS

__all__ = ["OVERLAYS", "PARTS"]

FILES = manifests()


def build(
    name: str,
    components: Iterable[str] = (),
    files: Mapping[str, str] = FILES,
    parts: Iterable[str] = PARTS,
) -> list[dict[str, Any]]:
    """Return the objects of an overlay, changed by components."""
    return overlay.build(name, files, components, parts)
