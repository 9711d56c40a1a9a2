"""The command line: one module per subcommand, each with ``add_parser`` and ``run``."""

import argparse
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Sequence

from noderestrict.cli._config import ConfigurableParser
from noderestrict.cli._errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments, without the program's name; the process's own if None.

    Returns:
        The subcommand's exit code; 2 for a usage error, 130 for an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="noderestrict",
        description="Kubernetes node isolation outside the API server.",
    )
    version = importlib.metadata.version("noderestrict")
    parser.add_argument("--version", action="version", version=f"noderestrict {version}")
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=ConfigurableParser
    )
    names = sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )
    # Only the module that is asked for is imported: the others cost start-up time.
    asked = [name for name in names if name in arguments[:1]]
    for name in asked or names:
        importlib.import_module(f"{__name__}.{name}").add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except UsageError as error:
        print(f"noderestrict {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
