"""Label and annotation keys by node-name pattern, as operators write them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

RESERVED = "node-restriction.kubernetes.io"

_PATTERN = re.compile(r"[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?")
_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?|[A-Za-z0-9][A-Za-z0-9._/-]*\*")


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """Keys and key prefixes for the nodes whose names match a pattern.

    Attributes:
        by_pattern: keys by node-name pattern, in which ``*`` matches anything. A key that ends with
            ``*`` is a prefix.
    """

    by_pattern: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, node: str) -> Callable[[str], bool]:
        """Return a function that returns whether a key is among those for a node."""
        if not self.by_pattern:
            return _none
        wanted = [
            key
            for pattern, keys in self.by_pattern.items()
            if fnmatchcase(node, pattern)
            for key in keys
        ]
        exact = frozenset(key for key in wanted if not key.endswith("*"))
        prefixes = tuple(key[:-1] for key in wanted if key.endswith("*"))
        return lambda key: key in exact or key.startswith(prefixes)

    def keys(self) -> tuple[str, ...]:
        """Return all keys and prefixes, for any node."""
        return tuple(sorted({key for keys in self.by_pattern.values() for key in keys}))

    def __bool__(self) -> bool:
        """Return whether there are any keys."""
        return bool(self.by_pattern)

    def __str__(self) -> str:
        """Return the text that ``parse_node_keys`` reads."""
        return ",".join(f"{pattern}={'|'.join(keys)}" for pattern, keys in self.by_pattern.items())


def _none(_key: str) -> bool:
    return False


def parse_node_keys(text: str) -> NodeKeys:
    """Return the keys of ``PATTERN=KEY|KEY,PATTERN=KEY``.

    Raises:
        ValueError: an entry has another form; the message names it.
    """
    found: dict[str, tuple[str, ...]] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, rest = entry.partition("=")
        if not equals:
            raise ValueError(f"{entry!r} is not NODES=KEY|KEY")
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"{entry!r}: {pattern!r} is not a node name or a pattern with *")
        keys = tuple(key.strip() for key in rest.split("|"))
        for key in keys:
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"{entry!r}: {key!r} is not a key or a key prefix that ends with *"
                )
        found[pattern] = (*found.get(pattern, ()), *keys)
    return NodeKeys(found)


def parse_allowed_labels(text: str) -> NodeKeys:
    """Return the keys that nodes may set in addition to those that Kubernetes allows.

    Raises:
        ValueError: as parse_node_keys; or no node may ever set a key, or a prefix does not contain
            a whole domain.
    """
    allowed = parse_node_keys(text)
    for key in allowed.keys():  # noqa: SIM118 (no mapping)
        domain, slash, _ = key.partition("/")
        if key.endswith("*") and not slash:
            raise ValueError(f"{key!r}: a prefix needs a whole domain, such as example.k8s.io/*")
        if domain == RESERVED or domain.endswith(f".{RESERVED}"):
            raise ValueError(f"{key!r}: no node may set labels of {RESERVED}")
    return allowed
