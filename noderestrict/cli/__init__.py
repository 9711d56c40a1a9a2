"""The command line: one module per subcommand, each with ``add_parser`` and ``run``."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from noderestrict.cli import _output
from noderestrict.cli._errors import UsageError, shown
from noderestrict.cli._parser import Parser, program

#: Each is a module beside this one.
COMMANDS = (
    "agents",
    "certs",
    "completion",
    "doctor",
    "exposure",
    "graph",
    "render",
    "replay",
    "serve",
    "verify",
    "version",
)


class _ShowVersion(argparse.Action):
    """``--version``: write what ``version`` writes."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from noderestrict.cli.version import as_text

        print(as_text(), end="")
        parser.exit()


def build_parser(
    only: str | None = None, prog: str | None = None
) -> tuple[Parser, Mapping[str, Parser]]:
    """Return the parser, and that of each command.

    Args:
        only: a command; the modules of the others are not loaded, because they cost time.
        prog: how usage calls the program; None for the way in which the user called it.
    """
    parser = Parser(
        prog=prog or program(sys.argv[0]),
        description="Kubernetes node isolation outside the API server.",
    )
    parser.add_argument(
        "--version", action=_ShowVersion, nargs=0, help="show version and build, and exit"
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name in [only] if only in COMMANDS else COMMANDS:
        importlib.import_module(f"{__name__}.{name}").add_parser(commands)
    return parser, commands.choices


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments, without the program's name; the process's own if None.

    Returns:
        The subcommand's exit code; 2 for a usage error, 130 for an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _output.prepare()
    try:
        return _run(arguments)
    finally:
        _output.flush_errors()


def _run(arguments: Sequence[str]) -> int:
    # Until it is known which command it is.
    options = argparse.Namespace(command="")
    try:
        try:
            parser, _ = build_parser(arguments[0] if arguments else None)
            options = parser.parse_args(arguments)
        except SystemExit:
            # It may have written the help.
            sys.stdout.flush()
            raise
        code = int(options.run(options))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough.
        _output.silence()
        return 0
    except OSError as error:
        if _output.is_full(error):
            _output.silence()
            _complain(options, f"cannot write the output: {error.strerror}")
        else:
            named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            _complain(options, f"{named}{error.strerror or error}")
        return 2
    except UsageError as error:
        _complain(options, str(error))
        return 2
    except MemoryError:
        _complain(options, "there is not enough memory for this input")
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def _complain(options: argparse.Namespace, message: str) -> None:
    # Standard error may be full, too; the exit code says enough then.
    with contextlib.suppress(OSError):
        prog = f"{program(sys.argv[0])} {options.command}".rstrip()
        print(shown(f"{prog}: {message}"), file=sys.stderr)
