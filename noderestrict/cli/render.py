"""``noderestrict render``: the manifests."""

import argparse
from pathlib import Path
from typing import Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._flags import add_audiences_flag, add_extra_flags, extra_policy


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "render",
        help="write the manifests",
        description="Write the manifests: a base and an overlay for each way to run, for "
        "kubectl apply -k DIR/overlays/NAME.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="made if it is not there")
    add_audiences_flag(
        parser, "for the server; needed only where its token cannot tell them (default: learned)"
    )
    add_extra_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write all files and print their paths; returns 0.

    Raises:
        UsageError: a file cannot be written.
    """
    from noderestrict.render.manifests import manifests

    files = manifests(extra_policy(options), options.api_audiences)
    for path, text in sorted(files.items()):
        file = options.directory / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from None
        print(file)
    return 0
