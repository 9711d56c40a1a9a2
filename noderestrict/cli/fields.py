"""Declare a setting once: its field has type, default, help and group, and the flag follows."""

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from noderestrict.cli.argument_types import SWITCH, ArgumentType

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
D = TypeVar("D")
C = TypeVar("C", bound="DataclassInstance")

_KEY = "setting"


@dataclass(frozen=True, slots=True)
class Group:
    """A section of the help.

    Attributes:
        title: heads it.
        description: one sentence on all its flags; empty for none.
    """

    title: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class _Declared:
    kind: ArgumentType[Any]
    default: Any
    help: str
    group: Group


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of a configuration.

    Attributes:
        field: its name; an underscore at the end keeps it from being a word of Python.
        kind: reads and prints its values.
        default: in effect where no source has a value.
        help: what it does, as a sentence without its default.
        group: section of the help that it stands in.
    """

    field: str
    kind: ArgumentType[Any]
    default: Any
    help: str
    group: Group

    @property
    def name(self) -> str:
        """Name of the flag without dashes in front, and key in a file."""
        return self.field.rstrip("_").replace("_", "-")

    @property
    def destination(self) -> str:
        """Name that argparse gives to what the flag holds."""
        return self.field.rstrip("_")

    def plain(self, value: Any) -> Any:
        """Return what a configuration file holds for a value; None if it leaves the key out."""
        return self.kind.none if value is None else self.kind.plain(value)

    def full_help(self) -> str:
        """Return the help with the default, for the command line."""
        shown = self.plain(self.default)
        if self.default is False or shown in (None, "", []):
            return self.help
        if isinstance(shown, float) and shown.is_integer():
            shown = int(shown)
        if isinstance(shown, list):
            shown = ", ".join(map(str, shown))
        return f"{self.help} (default: {shown})"


def setting(default: D, kind: ArgumentType[T], help: str, group: Group) -> T | D:  # noqa: A002
    """Declare a field of a frozen dataclass as a setting.

    Args:
        default: in effect where no source has a value; never changed.
        kind: reads and prints its values.
        help: what it does, as a sentence without its default.
        group: section of the help that it stands in.
    """
    declared = {_KEY: _Declared(kind, default, help, group)}
    found: D = dataclasses.field(default_factory=lambda: default, metadata=declared)
    return found


def switch(help: str, group: Group) -> bool:  # noqa: A002
    """Declare a field of a frozen dataclass as a setting that is off by default."""
    off = False
    return setting(off, SWITCH, help, group)


def settings_of(configuration: "type[DataclassInstance]") -> tuple[Setting, ...]:
    """Return the settings of a configuration, group by group."""
    found: dict[Group, list[Setting]] = {}
    for each in _settings(configuration):
        found.setdefault(each.group, []).append(each)
    return tuple(each for group in found.values() for each in group)


def _settings(configuration: "type[DataclassInstance]") -> Iterator[Setting]:
    for field in dataclasses.fields(configuration):
        declared: _Declared = field.metadata[_KEY]
        yield Setting(field.name, declared.kind, declared.default, declared.help, declared.group)


def add_flags(
    parser: argparse.ArgumentParser,
    configuration: "type[DataclassInstance]",
    *,
    grouped: bool = False,
) -> None:
    """Add the flags of all settings of a configuration.

    Args:
        parser: of a command.
        configuration: whose fields are settings.
        grouped: show each group in a section of its own.
    """
    sections: dict[Group, argparse._ActionsContainer] = {}
    for each in settings_of(configuration):
        section: argparse._ActionsContainer = parser
        if grouped:
            group = each.group
            if group not in sections:
                sections[group] = parser.add_argument_group(group.title, group.description or None)
            section = sections[group]
        each.kind.add_to(section, f"--{each.name}", each.full_help().replace("%", "%%"))


def given(configuration: "type[DataclassInstance]", options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the command line gives, by field."""
    flags = vars(options)
    return {
        each.field: each.kind.from_flag(flags[each.destination])
        for each in settings_of(configuration)
        if each.destination in flags
    }


def from_flags(configuration: type[C], options: argparse.Namespace) -> C:
    """Return the configuration that the command line alone gives."""
    return configuration(**given(configuration, options))
