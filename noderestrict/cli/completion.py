"""``noderestrict completion``: the script with which a shell completes commands and flags."""

import argparse
from collections.abc import Iterable
from enum import Enum
from typing import Any

from noderestrict.cli._parser import NAME, Parser
from noderestrict.graph.views import REACHED

_SHELLS = ("bash", "zsh", "fish")
_FILES = ("FILE", "FILE_OR_DIR")
_DIRECTORY = "DIR"
_COMMANDS = {
    "context": "kubectl config get-contexts -o name 2>/dev/null",
    "namespace": "kubectl get namespaces -o custom-columns=N:.metadata.name --no-headers "
    "2>/dev/null",
}


class Paths(Enum):
    """What of a file system an argument names."""

    FILES = "files"
    DIRECTORIES = "directories"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "completion",
        help="write the completion script of a shell",
        description="Write the script with which a shell completes commands, flags and their "
        "values:\n"
        "  bash  source <(noderestrict completion bash)\n"
        "  zsh   source <(noderestrict completion zsh)\n"
        "  fish  noderestrict completion fish | source",
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the script and return 0."""
    print(script(options.shell))
    return 0


def script(shell: str) -> str:
    """Return the completion script of a shell."""
    import shtab

    from noderestrict.cli import build_parser

    # kubectl completes its own command line: the script is always that of our program.
    parser, _ = build_parser(prog=NAME)
    _prepare(parser)
    return shtab.complete(parser, shell)


def values_of(action: argparse.Action) -> Paths | str | Iterable[str] | None:
    """Return what an argument, or that of a flag, may be.

    Returns:
        Paths, the command of a shell that prints it, or words; None if nobody can know.
    """
    if action.metavar in _FILES:
        return Paths.FILES
    if action.metavar == _DIRECTORY:
        return Paths.DIRECTORIES
    if action.dest in _COMMANDS:
        return _COMMANDS[action.dest]
    return REACHED if action.metavar == "KIND" else action.choices


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Make a parser, and those below it, say what shtab needs to know of them."""
    import shtab

    if isinstance(parser, Parser) and parser.kinds:
        _replace_arguments(parser)
    for action in parser._actions:  # noqa: SLF001 (shtab reads them as well)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for below in action.choices.values():
                _prepare(below)
            continue
        match values_of(action):
            case Paths.FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            case Paths.DIRECTORIES:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            case str() as command:
                action.complete = shtab.cmd(command)  # type: ignore[attr-defined]
            case words:
                action.choices = words


def _replace_arguments(parser: Parser) -> None:
    """Put the kinds of a command into the place of its argument, as shtab knows no kinds."""
    for action in [one for one in parser._actions if not one.option_strings]:  # noqa: SLF001
        parser._remove_action(action)  # noqa: SLF001
    commands = parser.add_subparsers(metavar="KIND_OF_FILES")
    for name, kind in parser.kinds.items():
        commands.add_parser(name, parents=[kind], add_help=False, help=kind.description)
    parser.kinds = {}
