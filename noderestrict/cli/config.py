"""The sources of a configuration: a flag wins over the environment, which wins over the file."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from noderestrict.cli.argument_types import PATH, checked
from noderestrict.cli.fields import Setting, given, settings_of
from noderestrict.cli.yaml_file import ConfigError, YamlFile

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

PREFIX = "NODERESTRICT_"
_FILE_VARIABLE = f"{PREFIX}CONFIG"
# In a pod, a Service named noderestrict sets these; see "service links" of Kubernetes.
_SERVICE_LINKS = (f"{PREFIX}SERVICE_", f"{PREFIX}PORT_")
_LONGEST_SHOWN = 200


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--print-config``."""
    group = parser.add_argument_group(
        "configuration",
        f"Every flag may also be set as {PREFIX}<FLAG> in the environment, or as a key of a "
        "YAML file. A flag wins over the environment, which wins over the file.",
    )
    group.add_argument(
        "--config",
        type=checked(PATH.parse),
        metavar="FILE",
        help="YAML file with the names of flags as keys",
    )
    group.add_argument(
        "--print-config",
        action="store_true",
        help="print the configuration in effect as such a file, and exit",
    )


class Sources(Generic[C]):
    """Where the configuration of one command comes from.

    Args:
        configuration: the class whose fields are settings.
        options: the parsed command line, with ``config``.
        environ: the environment.
        completed: returns the values that are given, by field, with defaults that depend on them.

    Raises:
        ConfigError: a variable is unknown or has a bad value.
    """

    def __init__(
        self,
        configuration: type[C],
        options: argparse.Namespace,
        environ: Mapping[str, str],
        completed: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self._configuration = configuration
        self._completed = completed
        self._settings = {each.name: each for each in settings_of(configuration)}
        # These win over the file whenever it is read.
        self._fixed = self._from_environment(environ) | given(configuration, options)
        file = options.config or environ.get(_FILE_VARIABLE)
        self._file = YamlFile(Path(file)) if file else None

    @property
    def has_file(self) -> bool:
        """Whether there is a file, which may change."""
        return self._file is not None

    def read(self) -> C:
        """Return the configuration, with the file as it is now.

        Raises:
            ConfigError: the file cannot be read, has an unknown key or a bad value.
        """
        return self._configuration(**self._completed(self._from_file() | self._fixed))

    def _from_file(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        found = {}
        for key, value in self._file.read().items():
            setting = self._settings.get(key) if isinstance(key, str) else None
            if setting is None:
                raise ConfigError(f"{self._file}: unknown key {key!r}")
            where = f"{self._file}: {key}"
            found[setting.field] = _converted(setting.kind.from_plain, value, where)
        return found

    def _from_environment(self, environ: Mapping[str, str]) -> dict[str, Any]:
        variables = {variable(each): each for each in self._settings.values()}
        found = {}
        for name, text in environ.items():
            if not name.startswith(PREFIX) or name == _FILE_VARIABLE:
                continue
            if name.startswith(_SERVICE_LINKS) or text.startswith("tcp://"):
                continue
            setting = variables.get(name)
            if setting is None:
                raise ConfigError(f"{name}: unknown variable; {PREFIX} begins the names of flags")
            found[setting.field] = _converted(setting.kind.from_text, text, name)
        return found


def variable(setting: Setting) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + setting.field.upper()


def as_yaml(configuration: "DataclassInstance") -> str:
    """Return a file for ``--config`` that has the effect of a configuration."""
    import yaml

    values = {
        each.name: each.plain(getattr(configuration, each.field))
        for each in settings_of(type(configuration))
    }
    kept = {name: value for name, value in values.items() if value is not None}
    return yaml.safe_dump(kept, sort_keys=False)


def differences(running: C, wanted: C, *, applied: frozenset[str]) -> dict[str, tuple[str, str]]:
    """Return the settings whose value changed, as short texts before and after, by name.

    Args:
        running: the configuration in effect.
        wanted: the configuration as its sources have it now.
        applied: fields that are left out, because they take effect at once.
    """
    return {
        each.name: (
            _shown(each, getattr(running, each.field)),
            _shown(each, getattr(wanted, each.field)),
        )
        for each in settings_of(type(running))
        if each.field not in applied and getattr(running, each.field) != getattr(wanted, each.field)
    }


def _shown(setting: Setting, value: Any) -> str:
    plain = setting.plain(value)
    return "" if plain is None else str(plain)[:_LONGEST_SHOWN]


def _converted(convert: Callable[[Any], Any], value: Any, where: str) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
