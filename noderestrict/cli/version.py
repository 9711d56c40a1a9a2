"""``noderestrict version``: what this copy is, and which Kubernetes it knows."""

import argparse
import json
import platform
from typing import Any

from noderestrict import __version__
from noderestrict.build import this_build
from noderestrict.cli.shared_flags import add_output_flag
from noderestrict.policy.features import defaults
from noderestrict.policy.releases import LATEST_MINOR, OLDEST_MINOR


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "version",
        help="show version, build, feature gates and the Kubernetes versions known",
        description="Show version, build, the Kubernetes versions whose rules are known, and the "
        "feature gates with their defaults in the newest of them.",
    )
    add_output_flag(parser, ("text", "json"), "text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the version and return 0."""
    print(as_json() if options.output == "json" else as_text(), end="")
    return 0


def as_text() -> str:
    """Return the version for people; the first line is program and version alone."""
    gates = defaults(LATEST_MINOR)
    lines = [f"noderestrict {__version__}"]
    rows = [
        ("build", str(this_build())),
        ("Kubernetes", f"1.{OLDEST_MINOR} to 1.{LATEST_MINOR}"),
        ("Python", platform.python_version()),
        *((gate, "on" if value else "off") for gate, value in gates.items()),
    ]
    width = max(len(name) for name, _ in rows)
    lines += (f"  {name:<{width}}  {value}" for name, value in rows[:3])
    lines.append(f"feature gates in 1.{LATEST_MINOR}")
    lines += (f"  {name:<{width}}  {value}" for name, value in rows[3:])
    return "\n".join(lines) + "\n"


def as_json() -> str:
    """Return the version for programs."""
    build = this_build()
    value = {
        "version": __version__,
        "build": {"commit": build.commit, "date": build.date},
        "kubernetes": {"oldest": f"1.{OLDEST_MINOR}", "newest": f"1.{LATEST_MINOR}"},
        "featureGates": defaults(LATEST_MINOR),
        "python": platform.python_version(),
    }
    return json.dumps(value, indent=2) + "\n"
