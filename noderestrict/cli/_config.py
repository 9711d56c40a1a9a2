"""Flags that may come from the environment or a file as well.

A flag on the command line wins over ``NODERESTRICT_*``, which wins over the file of ``--config``,
which wins over the default.
"""

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noderestrict.errors import NoderestrictError
from noderestrict.pki.files import read_regular
from noderestrict.policy.hostile import refused_as
from noderestrict.policy.keys import NodeKeys

PREFIX = "NODERESTRICT_"
# In a pod, a Service named noderestrict sets these; see "service links" of Kubernetes.
_SERVICE_LINKS = (f"{PREFIX}SERVICE_", f"{PREFIX}PORT_")
#: Far longer than one that anybody writes; to read it takes about a second.
_LONGEST_FILE = 256 * 1024
_LONGEST_MESSAGE = 500
_OWN = ("config", "print_config", "help")


class ConfigError(NoderestrictError, ValueError):
    """A source holds what cannot be used; the message names source, key and value, in one line."""

    def __init__(self, message: str) -> None:
        shown = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"
        super().__init__(" ".join(shown.split()))


class ConfigurableParser(argparse.ArgumentParser):
    """A parser whose flags may come from the environment and from a file.

    ``add_config_flags`` switches that on.
    """

    configurable = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # What is given must be recognized by its whole name, since other sources give way to it.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        #: The file that was read, and the settings that it may change later.
        self._file: Path | None = None
        self._given: set[str] = set()
        self._plain_defaults: dict[str, Any] = {}
        #: What was read last, and what it holds; to read YAML takes long.
        self._read: tuple[bytes, Any] | None = None
        self._had_content = False

    def add_config_flags(self) -> None:
        """Add ``--config`` and ``--print-config``."""
        self.configurable = True
        group = self.add_argument_group(
            "configuration",
            f"Every flag may also be set as {PREFIX}<FLAG> in the environment, or as a key of a "
            "YAML file. A flag wins over the environment, which wins over the file.",
        )
        group.add_argument(
            "--config", type=Path, metavar="FILE", help="YAML, with the flags' names as keys"
        )
        group.add_argument(
            "--print-config",
            action="store_true",
            help="print what is in effect, as such a file, and stop",
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments; what they do not give is taken from the other sources."""
        if not self.configurable or args is None:
            return super().parse_known_args(args, namespace)
        try:
            settings = self._other_sources(args, os.environ)
        except ConfigError as error:
            self.error(str(error))
        # An appending flag would add to its default, instead of replacing it.
        lists = {action.dest for action in self.flags().values() if action.nargs == "+"}
        self._plain_defaults = {action.dest: action.default for action in self.flags().values()}
        self.set_defaults(**{key: val for key, val in settings.items() if key not in lists})
        options, rest = super().parse_known_args(args, namespace)
        for key in lists & settings.keys():
            if not getattr(options, key):
                setattr(options, key, settings[key])
        return options, rest

    def flags(self) -> dict[str, argparse.Action]:
        """Return the flags that other sources may set, by their long names."""
        return {
            max(action.option_strings, key=len).removeprefix("--"): action
            for action in self._actions
            if action.option_strings and action.dest not in _OWN
        }

    def _other_sources(self, args: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
        own = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
        own.add_argument("--config")
        try:
            file = own.parse_known_args(list(args))[0].config
        except argparse.ArgumentError:
            file = None  # the parser itself reports it
        file = file or environ.get(f"{PREFIX}CONFIG")
        self._file = Path(file) if file else None
        environment = self._from_environment(environ)
        self._given = environment.keys() | {
            action.dest
            for action in self.flags().values()
            for option in action.option_strings
            if any(arg == option or arg.startswith(f"{option}=") for arg in args)
        }
        return self.read_file() | environment

    def read_file(self) -> dict[str, Any]:
        """Return what the file says now, as the flags' values by destination; {} without a file.

        Raises:
            ConfigError: the file cannot be used.
        """
        return self._from_file(self._file) if self._file else {}

    def changed_by_file(self, options: argparse.Namespace, dest: str) -> Any:
        """Return a setting as the file has it now, unless flag or environment give it.

        Args:
            options: as parsed at the start.
            dest: of the flag.

        Raises:
            ConfigError: the file cannot be used.
        """
        found = self.read_file()
        if dest in self._given:
            return getattr(options, dest)
        return found.get(dest, self._plain_defaults[dest])

    def _from_file(self, file: Path) -> dict[str, Any]:
        where = f"--config {file}"
        try:
            text = read_regular(file, _LONGEST_FILE)
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror or error}") from None
        if self._read is None or self._read[0] != text:
            self._read = text, _parsed(text, where)
        content = self._read[1]
        if isinstance(content, ConfigError):
            # A new one: one that is raised again and again grows.
            raise ConfigError(str(content))
        if content is None:
            if self._had_content:
                raise ConfigError(f"{where}: the file is empty; {{}} is one without settings")
            return {}
        self._had_content = True
        if not isinstance(content, dict):
            raise ConfigError(f"--config {file}: a mapping of flags to values is needed")
        flags = self.flags()
        found = {}
        for key, value in content.items():
            action = flags.get(key) if isinstance(key, str) else None
            if action is None:
                raise ConfigError(f"--config {file}: unknown key {key!r}")
            found[action.dest] = _converted(action, value, f"--config {file}: {key}")
        return found

    def _from_environment(self, environ: Mapping[str, str]) -> dict[str, Any]:
        flags = {_variable(name): action for name, action in self.flags().items()}
        found = {}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
                continue
            if variable.startswith(_SERVICE_LINKS) or text.startswith("tcp://"):
                continue
            action = flags.get(variable)
            if action is None:
                raise ConfigError(f"{variable}: unknown; it would be a flag's name after {PREFIX}")
            value = text.split(",") if action.nargs == "+" else text
            found[action.dest] = _converted(action, value, variable)
        return found

    def effective(self, options: argparse.Namespace) -> str:
        """Return a file for ``--config`` that has the effect of these options."""
        import yaml

        values = {
            name: plain(name, getattr(options, action.dest))
            for name, action in self.flags().items()
        }
        kept = {name: value for name, value in values.items() if value is not None}
        return yaml.safe_dump(kept, sort_keys=False)


def _parsed(text: bytes, where: str) -> Any:
    """Return what YAML holds, or the error that refuses it."""
    # Here, because most commands never need it.
    import yaml

    try:
        with refused_as(ConfigError, where):
            loader = yaml.SafeLoader(text.decode("utf-8"))
            try:
                node = loader.get_single_node()
                if node is None:
                    return None
                if _unfolded(node, {}) > _LONGEST_FILE:
                    raise ConfigError(f"{where}: too much for its aliases to repeat")
                return loader.construct_document(node)
            finally:
                loader.dispose()
    except ConfigError as error:
        return error


def _unfolded(node: Any, known: dict[int, float]) -> float:
    """Return how long a YAML node is with its aliases replaced by what they stand for."""
    if id(node) in known:
        return known[id(node)]
    # What holds itself never ends.
    known[id(node)] = math.inf
    if isinstance(node.value, str):
        length = 1.0 + len(node.value)
    else:
        # Of a sequence its items, of a mapping pairs of key and value.
        parts = (part for entry in node.value for part in _parts(entry))
        length = 1.0 + sum(_unfolded(part, known) for part in parts)
    known[id(node)] = length
    return length


def _parts(entry: Any) -> Sequence[Any]:
    return entry if isinstance(entry, tuple) else (entry,)


def _variable(flag: str) -> str:
    return PREFIX + flag.upper().replace("-", "_")


def _converted(action: argparse.Action, value: Any, where: str) -> Any:
    """Return what the flag would make of a value."""
    if action.nargs == "+":
        files = value if isinstance(value, list) else [value]
        if not all(isinstance(file, str) and file for file in files):
            raise ConfigError(f"{where}: {value!r} is no list of files")
        return [files]
    if action.nargs == 0:
        wanted = {True: True, False: False, "true": True, "false": False}
        if not isinstance(value, bool | str) or value not in wanted:
            raise ConfigError(f"{where}: {value!r} is neither true nor false")
        return wanted[value]
    text = _text(value, where)
    convert = action.type if callable(action.type) else str
    try:
        converted = convert(text)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None
    if action.choices is not None and converted not in action.choices:
        raise ConfigError(f"{where}: {text!r} is none of {', '.join(action.choices)}")
    return converted


def _text(value: Any, where: str) -> str:
    """Return a value of the file as it would stand on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(_text(item, where) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={_entry(item, where)}" for key, item in value.items())
    raise ConfigError(f"{where}: {value!r} is no value of a flag")


def _entry(value: Any, where: str) -> str:
    if isinstance(value, list):
        return "|".join(_text(item, where) for item in value)
    return _text(value, where)


def plain(name: str, value: Any) -> Any:
    """Return a flag's value as a file for ``--config`` has it."""
    if isinstance(value, Path):
        return str(value)
    if name == "kubernetes-version" and value is not None:
        return f"1.{value}"
    if name.endswith("-address"):
        return value if isinstance(value, str) else ":".join(map(str, value or ()))
    if name == "state":
        return [file for group in value for file in group] or None
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, NodeKeys):
        return {pattern: list(keys) for pattern, keys in value.by_pattern.items()} or None
    if isinstance(value, Mapping):
        return dict(value) or None
    return value
