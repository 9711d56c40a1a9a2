"""``noderestrict render overlay``: print one overlay, complete, for clusters without kustomize."""

import argparse
from typing import Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._files import write_files
from noderestrict.cli.argument_types import NAMES, PATH, checked
from noderestrict.cli.render_flags import add_render_flags, rendered


def add_kind(render: Any) -> None:
    """Add the parser to that of ``render``."""
    parser = render.add_kind(
        "overlay",
        description="Print the objects of an overlay as plain YAML, with components if wanted. "
        "Nothing else is needed to apply them: noderestrict render overlay self-signed | kubectl "
        "apply -f -",
    )
    parser.add_argument(
        "overlay", metavar="OVERLAY", help="control-plane, self-signed, cert-manager or audit"
    )
    parser.add_argument(
        "directory",
        type=checked(PATH.parse),
        nargs="?",
        metavar="DIR",
        help="directory for install.yaml and enforce.yaml, instead of the output; created if "
        "missing",
    )
    parser.add_argument(
        "--part",
        choices=("install", "enforce"),
        default="install",
        help="what to print: the server, or the registration that is written once it serves",
    )
    parser.add_argument(
        "--components",
        type=checked(NAMES.parse),
        default=(),
        metavar="A,B",
        help="components to add to the server, such as monitoring",
    )
    add_render_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the objects, or write them and print the paths, and return 0.

    Raises:
        UsageError: a flag has a bad value, or a file cannot be read or written.
    """
    from noderestrict.render.manifests import OVERLAYS
    from noderestrict.render.overlay import PARTS, build, components
    from noderestrict.render.written import yaml_text

    if options.overlay not in OVERLAYS:
        raise UsageError(f"OVERLAY {options.overlay!r} is not one of {', '.join(OVERLAYS)}")
    files = rendered(options)
    known = components(files)
    for name in options.components:
        if name not in known:
            raise UsageError(f"--components: {name!r} is not one of {', '.join(known)}")

    def text(part: str) -> str:
        added = options.components if part == "install" else ()
        return yaml_text(build(options.overlay, files, added, [part]))

    if options.directory is None:
        print(text(options.part), end="")
    else:
        write_files(options.directory, {f"{part}.yaml": text(part) for part in PARTS})
    return 0
