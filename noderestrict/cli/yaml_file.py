"""Read a YAML file that may hold anything."""

from pathlib import Path
from typing import Any

from noderestrict.errors import NoderestrictError
from noderestrict.pki.files import read_regular
from noderestrict.policy.hostile import refused_as
from noderestrict.policy.yaml_nodes import settings_loader, unfolded

#: Far longer than one that anybody writes; reading it takes about a second.
_LONGEST_FILE = 256 * 1024
_LONGEST_MESSAGE = 500


class ConfigError(NoderestrictError, ValueError):
    """A source holds an unusable value; the message names source, key and value, in one line."""

    def __init__(self, message: str) -> None:
        shown = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"
        super().__init__(" ".join(shown.split()))


class YamlFile:
    """A configuration file, read again and again and parsed when its text has changed.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Parsing takes long: keep what was read last, and what it holds.
        self._last: tuple[bytes, Any] | None = None
        self._had_content = False

    def __str__(self) -> str:
        """Return how messages name the file."""
        return f"--config {self._path}"

    def read(self) -> dict[Any, Any]:
        """Return the mapping that the file holds now; an empty one if it never had content.

        Raises:
            ConfigError: the file cannot be read, is not a mapping, or has lost its content.
        """
        try:
            text = read_regular(self._path, _LONGEST_FILE)
        except OSError as error:
            raise ConfigError(f"{self}: {error.strerror or error}") from None
        if self._last is None or self._last[0] != text:
            self._last = text, self._parsed(text)
        content = self._last[1]
        if isinstance(content, ConfigError):
            # The traceback of an error that is raised again and again grows: raise a new one.
            raise ConfigError(str(content))
        if content is None:
            if self._had_content:
                raise ConfigError(f"{self}: the file is empty; {{}} is one without settings")
            return {}
        self._had_content = True
        if not isinstance(content, dict):
            raise ConfigError(f"{self}: a mapping of flags to values is needed")
        return content

    def _parsed(self, text: bytes) -> Any:
        """Return what a text holds, or the error that rejects it."""
        try:
            with refused_as(ConfigError, str(self)):
                loader = settings_loader()(text.decode("utf-8"))
                try:
                    node = loader.get_single_node()
                    if node is None:
                        return None
                    if unfolded(node) > _LONGEST_FILE:
                        raise ConfigError(f"{self}: too much for its aliases to repeat")
                    repeated = _repeated_key(node)
                    if repeated is not None:
                        raise ConfigError(f"{self}: key {repeated!r} is set twice")
                    return loader.construct_document(node)
                finally:
                    loader.dispose()
        except ConfigError as error:
            return error


def _repeated_key(node: Any) -> str | None:
    """Return a key that a mapping of the document's top level, or one in it, holds twice."""
    if not isinstance(node.value, list) or not all(isinstance(one, tuple) for one in node.value):
        return None
    seen: set[str] = set()
    for key, value in node.value:
        if isinstance(key.value, str) and key.value != "<<":
            if key.value in seen:
                return key.value
            seen.add(key.value)
        inner = None if value is node else _repeated_key(value)
        if inner is not None:
            return inner
    return None
