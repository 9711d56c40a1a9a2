"""The command line: one module per subcommand, each with ``add_parser`` and ``run``."""

import argparse
import contextlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from noderestrict import __version__
from noderestrict.cli import _output
from noderestrict.cli._errors import UsageError
from noderestrict.policy.text import printable

#: Each is a module beside this one.
COMMANDS = ("agents", "certs", "doctor", "exposure", "graph", "render", "replay", "serve", "verify")


class _CommandParser(argparse.ArgumentParser):
    """A parser that takes flags by their whole names only, so that a new one breaks no script.

    Attributes:
        kinds: parsers that take over if their name is the first argument.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.kinds: dict[str, argparse.ArgumentParser] = {}

    def add_kind(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Return a new parser that takes over if this name is the first argument."""
        self.kinds[name] = _CommandParser(prog=f"{self.prog} {name}", **options)
        return self.kinds[name]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, or let the parser of a kind do it."""
        kind = self.kinds.get(args[0]) if args else None
        if kind is not None:
            return kind.parse_known_args(args[1:], namespace)
        return super().parse_known_args(args, namespace)


def build_parser(
    only: str | None = None,
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser, and that of each command.

    Args:
        only: a command; the modules of the others are not loaded, because they cost time.
    """
    parser = argparse.ArgumentParser(
        prog="noderestrict",
        description="Kubernetes node isolation outside the API server.",
    )
    parser.add_argument("--version", action="version", version=f"noderestrict {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_CommandParser
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
    parser, _ = build_parser(arguments[0] if arguments else None)
    options = parser.parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough.
        _output.silence()
        return 0
    except OSError as error:
        if not _output.is_full(error):
            raise
        _output.silence()
        with contextlib.suppress(OSError):
            print(
                f"noderestrict {options.command}: cannot write the output: {error.strerror}",
                file=sys.stderr,
            )
        return 2
    except UsageError as error:
        print(printable(f"noderestrict {options.command}: {error}"), file=sys.stderr)
        return 2
    except MemoryError:
        print(
            f"noderestrict {options.command}: there is not enough memory for this input",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return code
