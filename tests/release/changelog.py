"""The text of a release: ``python -m tests.release.changelog VERSION`` prints its section."""

import argparse
import re
import sys
from pathlib import Path

from noderestrict import __version__

ROOT = Path(__file__).parents[2]
_HEADING = re.compile(r"^## (?P<title>\S+)(?: \(\d{4}-\d\d-\d\d\))?$", re.MULTILINE)


def section(text: str, version: str, *, unreleased: bool = False) -> str:
    """Return what a changelog says of a version, "" if nothing.

    Args:
        text: the changelog.
        version: such as 0.1.0.
        unreleased: take the section "Unreleased" if the version has none yet.
    """
    found = list(_HEADING.finditer(text))
    ends = [one.start() for one in found[1:]] + [len(text)]
    sections = {
        one["title"]: text[one.end() : end].strip() for one, end in zip(found, ends, strict=True)
    }
    return sections.get(version) or (sections.get("Unreleased", "") if unreleased else "")


def main() -> int:
    parser = argparse.ArgumentParser(description="Print what the changelog says of a version.")
    parser.add_argument("version", help="such as 0.1.0, or the tag: v0.1.0")
    parser.add_argument("--unreleased", action="store_true", help="for a dry run")
    arguments = parser.parse_args()
    version = arguments.version.removeprefix("v")
    if version != __version__:
        print(f"noderestrict/__init__.py: version {__version__}, not {version}", file=sys.stderr)
        return 1
    text = section((ROOT / "CHANGELOG.md").read_text(), version, unreleased=arguments.unreleased)
    if not text:
        print(f"CHANGELOG.md: no section '## {version} (YYYY-MM-DD)'", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
