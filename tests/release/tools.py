"""The commands that publish a release, from ``make publish-assets``."""

from pathlib import Path

import pytest

BUILT = Path(__file__).parents[2] / ".assets" / "publish"


def tool(name: str) -> Path:
    """Return the path of cosign, crane or syft; skips the test if they are not built."""
    path = BUILT / name
    if not path.exists():
        pytest.skip(f"no {name} to test with: make publish-assets")
    return path
