"""``make bench-compare OLD=a.json NEW=b.json``: what became faster and what slower."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def flat(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}/{key}" if path else key)
    elif isinstance(value, int | float):
        yield path, float(value)


def main(old_file: str, new_file: str) -> None:
    old, new = (dict(flat(json.loads(Path(file).read_text()))) for file in (old_file, new_file))
    print(f"{'figure':<60}{'old':>14}{'new':>14}{'new/old':>9}")
    for name in sorted(old.keys() & new.keys()):
        ratio = f"{new[name] / old[name]:.2f}" if old[name] else ""
        print(f"{name:<60}{old[name]:>14,.2f}{new[name]:>14,.2f}{ratio:>9}")
    for name in sorted(old.keys() ^ new.keys()):
        print(f"{name}: only in {old_file if name in old else new_file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
