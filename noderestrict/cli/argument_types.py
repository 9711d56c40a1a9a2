"""The types of settings: how each is read from a flag, a variable or a file, and printed again."""

import argparse
import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from noderestrict.agents.agents import RULES as AGENT_RULES
from noderestrict.policy import features
from noderestrict.policy.extra import FORBIDDEN_LABELS
from noderestrict.policy.keys import NodeKeys, parse_allowed_labels, parse_node_keys
from noderestrict.policy.modes import MODES, OFF
from noderestrict.policy.releases import parse_rules
from noderestrict.policy.table import RULE_IDS, STRICT_RULE_IDS
from noderestrict.render import names
from noderestrict.render.policy_modes import ACTIONS

T = TypeVar("T")

_HIGHEST_PORT = 65535
_MILLION = 1_000_000
_MOST_SECONDS = 1e9
_MOST_DAYS = 36500
_ANY_HOST = "0.0.0.0"  # noqa: S104 (where the operator names none)
_ALL = "all"
#: All rules of an agent, or one of them.
_AGENT_RULE = re.compile(rf"agents/[a-z0-9-]+(/({'|'.join(AGENT_RULES)}))?")
#: The strict rules that an operator turns on by name alone.
SELECTABLE = tuple(rule for rule in STRICT_RULE_IDS if rule != FORBIDDEN_LABELS)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class ArgumentType(Generic[T]):
    """A type of setting that is written as one text.

    Attributes:
        parse: returns the value of a text; raises ValueError for a bad one.
        metavar: stands for the value in the help.
        plain: returns what a configuration file holds for a value; None leaves the key out.
        none: what it holds for None.
        choices: the only texts allowed; empty allows any that parses.
    """

    parse: Callable[[str], T]
    metavar: str | None = None
    plain: Callable[[Any], Any] = _same
    none: str | None = None
    choices: tuple[str, ...] = ()

    def add_to(self, parser: argparse._ActionsContainer, flag: str, text: str) -> None:
        """Add the flag; argparse leaves its destination unset where it is not given."""
        parser.add_argument(
            flag,
            type=checked(self.parse),
            choices=self.choices or None,
            metavar=self.metavar,
            default=argparse.SUPPRESS,
            help=text,
        )

    def from_flag(self, value: Any) -> T:
        """Return the value of what argparse made of the command line."""
        found: T = value
        return found

    def from_text(self, text: str) -> T:
        """Return the value of an environment variable.

        Raises:
            ValueError: the text has another form.
        """
        try:
            value = self.parse(text)
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None
        if self.choices and value not in self.choices:
            raise ValueError(f"{text!r} is not one of {', '.join(self.choices)}")
        return value

    def from_plain(self, value: Any) -> T:
        """Return the value of what a configuration file holds.

        Raises:
            ValueError: it has another form.
        """
        return self.from_text(_as_text(value))


class Switch(ArgumentType[bool]):
    """True or false: its flag takes no value."""

    __slots__ = ()

    def add_to(self, parser: argparse._ActionsContainer, flag: str, text: str) -> None:
        """Add the flag; argparse leaves its destination unset where it is not given."""
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)

    def from_plain(self, value: Any) -> bool:
        """Return the value of what a configuration file holds.

        Raises:
            ValueError: it is neither true nor false.
        """
        return value if isinstance(value, bool) else self.parse(value)


class Files(ArgumentType[tuple[str, ...]]):
    """Names of files: its flag takes several values, and may be repeated."""

    __slots__ = ()

    def add_to(self, parser: argparse._ActionsContainer, flag: str, text: str) -> None:
        """Add the flag; argparse leaves its destination unset where it is not given."""
        parser.add_argument(
            flag,
            nargs="+",
            action="append",
            default=argparse.SUPPRESS,
            metavar=self.metavar,
            help=text,
        )

    def from_flag(self, value: Any) -> tuple[str, ...]:
        """Return all files of all occurrences of the flag."""
        return tuple(file for group in value for file in group)

    def from_plain(self, value: Any) -> tuple[str, ...]:
        """Return the value of what a configuration file holds.

        Raises:
            ValueError: it is not a list of files.
        """
        files = value if isinstance(value, list) else [value]
        if not all(isinstance(file, str) and file and "\0" not in file for file in files):
            raise ValueError(f"{value!r} is not a list of files")
        return tuple(files)


class Repeated(ArgumentType[tuple[str, ...]]):
    """Texts: its flag takes one value, and may be repeated."""

    __slots__ = ()

    def add_to(self, parser: argparse._ActionsContainer, flag: str, text: str) -> None:
        """Add the flag; argparse leaves its destination unset where it is not given."""
        parser.add_argument(
            flag, action="append", default=argparse.SUPPRESS, metavar=self.metavar, help=text
        )

    def from_flag(self, value: Any) -> tuple[str, ...]:
        """Return the values of all occurrences of the flag."""
        return tuple(value)


class _Namespace(ArgumentType[str]):
    """A namespace, whose flag has kubectl's short form too."""

    __slots__ = ()

    def add_to(self, parser: argparse._ActionsContainer, flag: str, text: str) -> None:
        """Add the flag; argparse leaves its destination unset where it is not given."""
        parser.add_argument(
            "-n",
            flag,
            type=checked(self.parse),
            default=argparse.SUPPRESS,
            metavar=self.metavar,
            help=text,
        )


def checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a parser whose ValueError argparse shows as it is."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _as_text(value: Any) -> str:
    """Return a value of a file as it would stand on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={_alternatives(item)}" for key, item in value.items())
    raise ValueError(f"{value!r} is not the value of a setting")


def _alternatives(value: Any) -> str:
    return "|".join(map(_as_text, value)) if isinstance(value, list) else _as_text(value)


def _parse_boolean(text: object) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    return Path(text)


def _parse_file_name(text: str) -> str | None:
    """Return a name; none for an empty text, as kubectl takes ``--kubeconfig ''``."""
    return str(_parse_path(text)) if text else None


def _parse_file_list(text: str) -> tuple[str, ...]:
    files = tuple(text.split(","))
    if not all(files) or "\0" in text:
        raise ValueError(f"{text!r} is not a list of files")
    return files


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _whole_number(text: str) -> int | None:
    # The number is bounded: Python refuses to convert one of thousands of digits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


def _parse_positive(text: str) -> int:
    number = _whole_number(text)
    if not number:
        raise ValueError(f"{text!r} is not a whole number above 0")
    return number


def _parse_port(text: str) -> int:
    port = _whole_number(text)
    if port is None or port > _HIGHEST_PORT:
        raise ValueError(f"{text!r} is not a port between 0 and {_HIGHEST_PORT}")
    return port


def _parse_known_port(text: str) -> int:
    port = _whole_number(text)
    if not port or port > _HIGHEST_PORT:
        raise ValueError(f"{text!r} is not a port between 1 and {_HIGHEST_PORT}")
    return port


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = -1
    if not 0 <= seconds < _MOST_SECONDS:
        raise ValueError(f"{text!r} is not a number of seconds")
    return seconds


def _parse_days(text: str) -> dt.timedelta:
    days = _whole_number(text)
    if not days or days >= _MOST_DAYS:
        raise ValueError(f"{text!r} is not a number of days")
    return dt.timedelta(days=days)


def _parse_certificate_names(text: str) -> tuple[str, ...]:
    return tuple(map(names.parse_certificate_name, _parse_names(text)))


def _parse_accounts(text: str) -> tuple[str, ...]:
    accounts = _parse_names(text)
    for account in accounts:
        names.parse_namespaced_name(account)
    return accounts


def parse_host_and_port(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPv6]:PORT``.

    Raises:
        ValueError: the text has another form.
    """
    name, _, digits = text.rpartition(":")
    host, port = name.strip("[]"), _whole_number(digits)
    if not host or port is None or port > _HIGHEST_PORT:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, port


def _parse_http_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or not text.isprintable():
        raise ValueError(f"{text!r} is not a URL that begins with http:// or https://")
    return text


def _parse_per_million(text: str) -> int:
    number = _whole_number(text)
    if number is None or number > _MILLION:
        raise ValueError(f"{text!r} is not a number from 0 to {_MILLION}")
    return number


def _parse_address(text: str) -> tuple[str, int] | None:
    """Return where to listen; ``:PORT`` is every address, and an empty text is nowhere."""
    if not text:
        return None
    return parse_host_and_port(f"{_ANY_HOST}{text}" if text.startswith(":") else text)


def plain_address(address: tuple[str, int]) -> str:
    """Return ``HOST:PORT``, or ``[IPv6]:PORT``."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse_addresses(text: str) -> tuple[tuple[str, int], ...]:
    return tuple(map(parse_host_and_port, _parse_names(text)))


def _plain_addresses(addresses: Sequence[tuple[str, int]]) -> list[str]:
    return [plain_address(one) for one in addresses]


def _rule_modes(known: Sequence[str]) -> ArgumentType[dict[str, str]]:
    def parse(text: str) -> dict[str, str]:
        modes = {}
        for entry in _parse_names(text):
            rule, equals, mode = entry.partition("=")
            if rule not in RULE_IDS and not _AGENT_RULE.fullmatch(rule):
                raise ValueError(
                    f"{rule!r} is not a rule; known: {', '.join(RULE_IDS)}, agents/NAME, and "
                    f"agents/NAME/RULE with {', '.join(AGENT_RULES)}"
                )
            if not equals or mode not in known:
                raise ValueError(f"{entry!r} is not RULE={'|'.join(known)}")
            modes[rule] = mode
        return modes

    return ArgumentType(parse, "RULE=MODE,...", _plain_mapping)


def _checked_registration(text: str) -> str:
    # Imported here: only this setting needs it.
    from noderestrict.render.registration import parse_registration

    parse_registration(text)
    return text


def parse_strict_rules(text: str) -> tuple[str, ...]:
    """Return the strict rules of ``RULE,RULE``, or every selectable one for ``all``.

    Raises:
        ValueError: one is not a strict rule.
    """
    wanted = _parse_names(text)
    if wanted == (_ALL,):
        return SELECTABLE
    for rule in wanted:
        if rule not in SELECTABLE:
            raise ValueError(
                f"{rule!r} is not a strict rule; known: {_ALL}, or any of {', '.join(SELECTABLE)}"
            )
    return wanted


def _parse_audiences(text: str) -> tuple[str, ...] | None:
    return _parse_names(text) or None


def _plain_mapping(value: Mapping[str, Any]) -> dict[str, Any] | None:
    return dict(value) or None


def _plain_keys(value: NodeKeys) -> dict[str, list[str]] | None:
    return {pattern: list(keys) for pattern, keys in value.by_pattern.items()} or None


def one_of(*choices: str) -> ArgumentType[str]:
    """Return the type of a text that is one of a few."""
    return ArgumentType(str, choices=choices)


TEXT = ArgumentType(str)
HOST = ArgumentType(str, "HOST")
NAME = ArgumentType(str, "NAME")
SWITCH = Switch(_parse_boolean)
PATH = ArgumentType(_parse_path, "FILE", str)
DIRECTORY = ArgumentType(_parse_path, "DIR", str)
#: A kubeconfig may be several files, separated as in a PATH.
FILE_NAME: ArgumentType[str | None] = ArgumentType(_parse_file_name, "FILE")
FILES = Files(_parse_file_list, "FILE", lambda files: list(files) or None)
REPEATED = Repeated(_parse_names, "NAME", list)
NAMESPACE = _Namespace(names.parse_namespace, "NAME")
NAMES: ArgumentType[tuple[str, ...]] = ArgumentType(_parse_names, "A,B", list)
PORT = ArgumentType(_parse_port, "PORT")
#: That others are told, so that it cannot be any free one.
KNOWN_PORT = ArgumentType(_parse_known_port, "PORT")
ADDRESS = ArgumentType(_parse_address, "HOST:PORT", plain_address, none="")
ADDRESSES: ArgumentType[tuple[tuple[str, int], ...]] = ArgumentType(
    _parse_addresses, "HOST:PORT,...", _plain_addresses
)
HTTP_URL = ArgumentType(_parse_http_url, "URL")
PER_MILLION = ArgumentType(_parse_per_million, "N")
SECONDS = ArgumentType(_parse_seconds, "SECONDS")
DAYS = ArgumentType(_parse_days, "DAYS")
CERTIFICATE_NAMES: ArgumentType[tuple[str, ...]] = ArgumentType(
    _parse_certificate_names, "A,B", list
)
ACCOUNTS: ArgumentType[tuple[str, ...]] = ArgumentType(_parse_accounts, "A,B", list)
NAMESPACED_NAME = ArgumentType(names.parse_namespaced_name, "NAMESPACE/NAME", "/".join)
COUNT = ArgumentType(_parse_positive, "N")
MIB = ArgumentType(_parse_positive, "MIB")
MODE = one_of(*MODES)
RULE_MODES = _rule_modes(MODES)
POLICY_MODE = one_of(*ACTIONS)
POLICY_RULE_MODES = _rule_modes((*ACTIONS, OFF))
REGISTRATION = ArgumentType(_checked_registration, "JSON")
FEATURE_GATES = ArgumentType(features.parse_gates, "A=true,B=false", _plain_mapping)
KUBERNETES_VERSION = ArgumentType(features.parse_version, "1.NN", lambda minor: f"1.{minor}")
RULES_OF = ArgumentType(parse_rules, "latest|1.NN[.P]", str, none="latest")
AUDIENCES = ArgumentType(_parse_audiences, "A,B", list)
STRICT_RULES = ArgumentType(parse_strict_rules, "A,B", list)
NODE_KEYS = ArgumentType(parse_node_keys, "NODES=KEY|KEY,...", _plain_keys)
ALLOWED_LABELS = ArgumentType(parse_allowed_labels, "NODES=KEY|KEY,...", _plain_keys)
IMAGE = ArgumentType(names.parse_image, "IMAGE")
OBJECT_NAME = ArgumentType(names.parse_name, "NAME")
LABELS = ArgumentType(names.parse_labels, "KEY=VALUE,...", _plain_mapping)
