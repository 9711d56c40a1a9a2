"""``noderestrict render``: write the manifests."""

import argparse
from typing import Any

from noderestrict.cli import render_authorizer, render_overlay, render_policies, render_values
from noderestrict.cli._files import write_files
from noderestrict.cli.argument_types import PATH, checked
from noderestrict.cli.render_flags import add_render_flags, rendered


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "render",
        help="write the manifests, the policies, or the files of the authorizer",
        description="Write the manifests: the Helm chart in DIR/chart, and for each way to run, "
        "DIR/overlays/NAME/install with the server, and DIR/overlays/NAME/enforce with its "
        "registration. 'render overlay' prints one of them as plain YAML, and 'render values' "
        "values of the chart. 'render policies' writes ValidatingAdmissionPolicies, and 'render "
        "authorizer' the files of the authorizer instead.",
    )
    render_authorizer.add_kind(parser)
    render_overlay.add_kind(parser)
    render_policies.add_kind(parser)
    render_values.add_kind(parser)
    parser.add_argument(
        "directory",
        type=checked(PATH.parse),
        metavar="DIR",
        help="directory to write to; created if missing",
    )
    add_render_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write all files, print their paths and return 0.

    Raises:
        UsageError: a flag has a bad value, or a file cannot be read or written.
    """
    write_files(options.directory, rendered(options))
    return 0
