"""Parse a command line: errors in one line with a suggestion, and help that fits the terminal."""

import argparse
import datetime as dt
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NoReturn

from noderestrict.cli._errors import shown
from noderestrict.cli.exit_codes import EXIT_CODES, exit_codes

NAME = "noderestrict"
_FEWEST_COLUMNS, _MOST_COLUMNS = 40, 100
_HELP_COLUMN = 24
_PLUGIN = re.compile(rf"kubectl[-_]{NAME}\b")

#: What argparse says, and what we say.
_REWORDED = (
    (r"expected (?:at least )?one argument", "a value is missing"),
    (r"expected (\d+) arguments", r"\1 values are needed"),
    (r"ignored explicit argument (.*)", r"takes no value, such as \1"),
    (r"not allowed with argument (?:-\w/)?(.*)", r"not allowed with \1"),
)
#: Of a flag, the short form is left out.
_OF_ARGUMENT = re.compile(r"argument (?:-\w/)?(.*?): (.*)", re.DOTALL)
_REQUIRED = "the following arguments are required: "
_ONE_REQUIRED = re.compile("one of the arguments .* is required")


def program(called: str) -> str:
    """Return how the user calls the command line.

    Args:
        called: the path under which the process was started: kubectl starts its plugins as
            ``kubectl-NAME``.
    """
    return f"kubectl {NAME}" if _PLUGIN.match(PurePath(called).name) else NAME


def described(text: str) -> dict[str, str]:
    """Return what a parser takes for its line in the list of commands, and for its own help."""
    return {"help": text, "description": f"{text[0].upper()}{text[1:]}."}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the known word that is most like another one, "" if none is."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), by_lower, 1, 0.6)
    return f": did you mean {by_lower[found[0]]}?" if found else ""


class HelpFormatter(argparse.HelpFormatter):
    """Wraps between words only, and shows in the usage only what is needed."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(
            prog, **{"max_help_position": _HELP_COLUMN, "width": _columns(), **options}
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        """Return the help with the default, which every flag that has one thus shows."""
        text, default = action.help or "", _shown(action.default)
        if not default or "(default:" in text or action.nargs == 0:
            return text
        return f"{text} (default: {default})".replace("%", "%%")

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Return a text whose indented lines stay as they are."""
        parts = re.split(r"\n(?= )|\n\n", text)
        return "\n".join(
            line
            for part in parts
            for line in ([part] if part.startswith(" ") else _wrapped(part, width, indent))
        )

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None,
    ) -> str:
        if usage is not None:
            return super()._format_usage(usage, actions, groups, prefix)
        actions = list(actions)
        words: list[str] = []
        grouped: set[int] = set()
        for group in groups:
            if group.required:
                grouped.update(map(id, group._group_actions))  # noqa: SLF001
                words.append(f"({' | '.join(map(self.usage_of, group._group_actions))})")  # noqa: SLF001
        words += (
            self.usage_of(action)
            for action in actions
            if action.required and action.option_strings and id(action) not in grouped
        )
        words += (self.usage_of(action) for action in actions if not action.option_strings)
        if any(action.option_strings and not action.required for action in actions):
            words.append("[FLAGS]")
        lead = f"{'usage: ' if prefix is None else prefix}{self._prog}"
        lines = textwrap.wrap(
            " ".join(_unbroken(word) for word in (lead, *words)),
            self._width,
            subsequent_indent=" " * 4,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join(lines).replace("\0", " ") + "\n\n"

    def usage_of(self, action: argparse.Action) -> str:
        """Return an argument as the usage shows it."""
        if not action.option_strings:
            return self._format_args(action, self._get_default_metavar_for_positional(action))
        flag = action.option_strings[-1]
        if action.nargs == 0:
            return flag
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{flag} {values}"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"


def _shown(default: Any) -> str:
    """Return a default as it would be given."""
    if default in (None, argparse.SUPPRESS, (), [], ""):
        return ""
    if isinstance(default, dt.timedelta):
        return str(default.days)
    if isinstance(default, list | tuple):
        return ", ".join(map(_shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _columns() -> int:
    """Return how long lines may be: long ones are hard to read, even where there is room."""
    return max(_FEWEST_COLUMNS, min(shutil.get_terminal_size().columns, _MOST_COLUMNS)) - 2


def _unbroken(word: str) -> str:
    """Return a word of the usage that is wrapped as a whole if it is short."""
    return word.replace(" ", "\0") if len(word) < _MOST_COLUMNS // 2 else word


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


class Parser(argparse.ArgumentParser):
    """A parser that takes flags by their whole names only, so that a new one breaks no script.

    Attributes:
        kinds: parsers that take over if their name is the first argument.
        words: of the command, without the program's name.
    """

    def __init__(self, *args: Any, words: str | None = None, **options: Any) -> None:
        options = {"allow_abbrev": False, "formatter_class": HelpFormatter, **options}
        super().__init__(*args, **options)
        self.kinds: dict[str, Parser] = {}
        self.words = _words(self.prog) if words is None else words
        self._positionals.title, self._optionals.title = "arguments", "flags"
        # Python 3.14 would colour only what its own formatter writes.
        self.color = False
        self._arguments: Sequence[str] = ()

    def add_kind(self, name: str, **options: Any) -> "Parser":
        """Return a new parser that takes over if this name is the first argument."""
        self.kinds[name] = Parser(prog=f"{self.prog} {name}", **options)
        return self.kinds[name]

    def leaves(self) -> "Iterator[Parser]":
        """Yield the parser of each command below that runs, or this one if it does."""
        below: list[Parser] = [*self.kinds.values()]
        groups = [one for one in self._actions if isinstance(one, argparse._SubParsersAction)]  # noqa: SLF001
        for group in groups:
            below += group.choices.values()
        if not groups:
            yield self
        for one in below:
            yield from one.leaves()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, or let the parser of a kind do it; what is unknown ends the process.

        The namespace gets ``prog``, which starts messages: program and command.
        """
        kind = self.kinds.get(args[0]) if args else None
        if kind is not None:
            return kind.parse_known_args(args[1:], namespace)
        self._arguments = args = list(sys.argv[1:] if args is None else args)
        found, extra = super().parse_known_args(args, namespace)
        extra = self._taken(found, extra)
        if extra:
            self._refuse(extra)
        if not hasattr(found, "prog"):
            found.prog = self.prog
        return found, []

    def _taken(self, found: argparse.Namespace, extra: list[str]) -> list[str]:
        """Add what stands after a flag to a list that began before it, as argparse does not."""
        rest = next((one for one in self._actions if one.nargs == "*"), None)
        if rest is None or any(one.startswith("-") for one in extra):
            return extra
        getattr(found, rest.dest).extend(extra)
        return []

    def _refuse(self, extra: Sequence[str]) -> NoReturn:
        flag = next((one for one in extra if one.startswith("-") and one != "-"), None)
        if flag is None:
            self.error(f"unexpected argument {extra[0]!r}; see '{self.prog} --help'")
        self._refuse_flag(flag)

    def _refuse_flag(self, flag: str) -> NoReturn:
        name = flag.partition("=")[0]
        guess = did_you_mean(name, self._flags())
        where = f"; see '{self.prog} --help'"
        self.error(f"unknown flag {name}{guess or where}")

    def _flags(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(one) for one in action.choices]
        guess = did_you_mean(str(value), known)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            what = str(action.metavar).lower()
            listed = f"; known: {', '.join(known)}; see '{self.prog} --help'"
            self.error(f"unknown {what} {value!r}{guess or listed}")
        raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(known)}{guess}")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write a text; argparse would not tell that the disk is full."""
        if message:
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        """Print an error in one line, and exit with 2."""
        self.exit(2, f"{shown(f'{self.prog}: {self._reworded(message)}')}\n")

    def _reworded(self, message: str) -> str:
        """Return what argparse says in our words."""
        if message.startswith(_REQUIRED) or _ONE_REQUIRED.fullmatch(message):
            self._refuse_unknown_flags()
        if message.startswith(_REQUIRED):
            missing = f"missing {message.removeprefix(_REQUIRED)}"
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                    missing = f"{missing}: one of {', '.join(action.choices)}"
            return f"{missing}; see '{self.prog} --help'"
        if _ONE_REQUIRED.fullmatch(message):
            return f"{message}; see '{self.prog} --help'"
        of_argument = _OF_ARGUMENT.fullmatch(message)
        if of_argument is None:
            return message
        name, text = of_argument.groups()
        for pattern, ours in _REWORDED:
            if re.fullmatch(pattern, text, re.DOTALL):
                text = re.sub(pattern, ours, text, flags=re.DOTALL)
        return f"argument {name}: {text}"

    def _refuse_unknown_flags(self) -> None:
        """Refuse a flag that does not exist before anything is missed."""
        known = self._option_string_actions
        for one in self._arguments:
            if one == "--":
                return
            if one.startswith("--") and one.partition("=")[0] not in known:
                self._refuse_flag(one)

    def format_help(self) -> str:
        """Return the help, with the exit codes of a command."""
        if self.words and self.words not in EXIT_CODES:
            return super().format_help()
        lines = ["", "exit codes:"]
        for code, meaning in exit_codes(self.words).items():
            first, *rest = _wrapped(meaning, _columns() - 8)
            lines += [f"  {code:<5} {first}", *(f"        {line}" for line in rest)]
        return super().format_help() + "\n".join(lines) + "\n"


def _words(prog: str) -> str:
    """Return the words of a command in the name of its parser."""
    return re.sub(rf"^(kubectl )?{NAME} ?", "", prog)
