"""``noderestrict render``: write the manifests."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli.argument_types import AUDIENCES
from noderestrict.cli.fields import add_flags, from_flags, setting
from noderestrict.cli.shared_flags import RULES, StrictPolicy


@dataclass(frozen=True, kw_only=True)
class RenderConfig(StrictPolicy):
    """What the manifests depend on."""

    api_audiences: tuple[str, ...] | None = setting(
        None,
        AUDIENCES,
        "the API server's --api-audiences, for the server; needed only if the server cannot learn "
        "them from its token",
        RULES,
    )


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "render",
        help="write the manifests",
        description="Write the manifests: a base and an overlay for each way to run, for "
        "kubectl apply -k DIR/overlays/NAME.",
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="directory to write to; created if missing"
    )
    add_flags(parser, RenderConfig)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write all files, print their paths and return 0.

    Raises:
        UsageError: a file cannot be written.
    """
    from noderestrict.render.manifests import manifests

    config = from_flags(RenderConfig, options)
    files = manifests(config.extra(), config.api_audiences)
    for path, text in sorted(files.items()):
        file = options.directory / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from None
        print(file)
    return 0
