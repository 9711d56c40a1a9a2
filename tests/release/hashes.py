"""Requirements with the hashes of their files: reads a report of ``pip install`` from the input."""

import json
import sys
from typing import Any


def lines(report: dict[str, Any]) -> list[str]:
    """Return requirements, by name, that only the files of a report fulfil.

    Args:
        report: as ``pip install --dry-run --report`` writes it.
    """
    found = []
    for one in report["install"]:
        metadata, hashes = one["metadata"], one["download_info"]["archive_info"]["hashes"]
        found.append(f"{metadata['name']}=={metadata['version']} --hash=sha256:{hashes['sha256']}")
    return sorted(found, key=str.lower)


if __name__ == "__main__":
    print("\n".join(lines(json.load(sys.stdin))))
