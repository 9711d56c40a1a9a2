"""``kubectl_complete-noderestrict``: what kubectl completes a command line of its plugin with.

kubectl runs it with the words after ``kubectl noderestrict``, of which the last one may be empty or
unfinished. It answers as Cobra's ``__complete`` does: one candidate a line, with its description
after a tab, and at last what else the shell shall do.

Source: plugin_completion.go of kubectl, and ShellCompDirective of Cobra.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from noderestrict.cli._parser import NAME, Parser
from noderestrict.cli.completion import Paths, values_of

_SECONDS = 3


class Directive(IntEnum):
    """What a shell shall do besides offering candidates."""

    FILES = 0
    NO_FILES = 4
    DIRECTORIES = 16


@dataclass(frozen=True, slots=True)
class Completion:
    """What may stand at the end of a command line.

    Attributes:
        candidates: words and their descriptions.
        directive: what a shell shall do besides.
    """

    candidates: Sequence[tuple[str, str]] = ()
    directive: Directive = Directive.NO_FILES


def main() -> int:
    """Print how the command line in the arguments can be completed, and return 0."""
    found = complete(sys.argv[1:])
    for word, description in found.candidates:
        print(f"{word}\t{description}" if description else word)
    print(f":{found.directive:d}")
    return 0


def complete(words: Sequence[str]) -> Completion:
    """Return how a command line can be completed.

    Args:
        words: after the program's name; the last one, which may be empty, is completed.
    """
    from noderestrict.cli import build_parser

    *before, last = words or [""]
    parser, _ = build_parser(prog=NAME)
    place = _Place(parser)
    for word in before:
        place.take(word)
    found = place.completion(last)
    kept = [one for one in found.candidates if one[0].startswith(last)]
    return Completion(kept, found.directive)


class _Place:
    """Where on a command line we are.

    Args:
        parser: of the program.
    """

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._arguments = 0
        self._flag: argparse.Action | None = None
        self._flags_end = False

    def take(self, word: str) -> None:
        """Go on past a word."""
        if self._flag is not None:
            self._flag = None
        elif word == "--" and not self._flags_end:
            self._flags_end = True
        elif word.startswith("-") and word != "-" and not self._flags_end:
            action = self._parser._option_string_actions.get(word)  # noqa: SLF001 (no public way)
            self._flag = action if action is not None and action.nargs != 0 else None
        elif (below := self._below().get(word)) is not None:
            self._parser, self._arguments = below, 0
        else:
            self._arguments += 1

    def completion(self, word: str) -> Completion:
        """Return what an unfinished word here can become."""
        if self._flag is not None:
            return _values(self._flag)
        if word.startswith("-") and not self._flags_end:
            name, equals, _ = word.partition("=")
            action = self._parser._option_string_actions.get(name)  # noqa: SLF001
            if equals and action is not None:
                values = _values(action)
                candidates = [(f"{name}={value}", text) for value, text in values.candidates]
                return Completion(candidates, values.directive)
            return Completion([*self._flags()])
        commands = [(name, _first(one.description)) for name, one in self._below().items()]
        values = self._argument()
        return Completion([*commands, *values.candidates], values.directive)

    def _argument(self) -> Completion:
        """Return what the next argument can be that is no command."""
        arguments = [
            one
            for one in self._parser._actions  # noqa: SLF001
            if not one.option_strings and not isinstance(one, argparse._SubParsersAction)  # noqa: SLF001
        ]
        last = len(arguments) - 1
        if self._arguments > last and not (arguments and arguments[last].nargs in ("*", "+")):
            return Completion()
        return _values(arguments[min(self._arguments, last)])

    def _below(self) -> dict[str, Parser]:
        """Return the parsers that a word here may choose."""
        if self._arguments:
            return {}
        found = dict(self._parser.kinds)
        for action in self._parser._actions:  # noqa: SLF001
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                found |= action.choices
        return found

    def _flags(self) -> Iterator[tuple[str, str]]:
        for action in self._parser._actions:  # noqa: SLF001
            for name in action.option_strings:
                yield name, _first(action.help)


def _first(text: str | None) -> str:
    """Return the first sentence of a help text, on one line."""
    return " ".join((text or "").split()).partition(". ")[0].removesuffix(".")


def _values(action: argparse.Action) -> Completion:
    """Return what an argument, or that of a flag, may be."""
    match values_of(action):
        case Paths.FILES:
            return Completion(directive=Directive.FILES)
        case Paths.DIRECTORIES:
            return Completion(directive=Directive.DIRECTORIES)
        case str() as command:
            return Completion([(one, "") for one in _lines(command)])
        case words:
            return Completion([(str(one), "") for one in words or ()])


def _lines(command: str) -> Iterable[str]:
    """Return what a command prints; nothing if it fails or takes long."""
    try:
        # One of our own commands, for a shell.
        done = subprocess.run(  # noqa: S603 (nothing of it is input)
            ["/bin/sh", "-c", command],
            capture_output=True,
            check=True,
            text=True,
            timeout=_SECONDS,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    return done.stdout.splitlines()
