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
    """Keys and prefixes of keys, for the nodes whose name a pattern matches.

    Attributes:
        by_pattern: keys by node-name pattern, in which ``*`` stands for anything. A key that ends
            with ``*`` is a prefix.
    """

    by_pattern: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, node: str) -> Callable[[str], bool]:
        """Return what tells whether a key is among those for a node."""
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
        """Return all keys and prefixes, whatever node they are for."""
        return tuple(sorted({key for keys in self.by_pattern.values() for key in keys}))

    def __bool__(self) -> bool:
        """Tell whether there is any key."""
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
            raise ValueError(f"{entry!r}: {pattern!r} is no node name, nor a pattern with *")
        keys = tuple(key.strip() for key in rest.split("|"))
        for key in keys:
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"{entry!r}: {key!r} is no key, nor the beginning of one with * at its end"
                )
        found[pattern] = (*found.get(pattern, ()), *keys)
    return NodeKeys(found)


def parse_allowed_labels(text: str) -> NodeKeys:
    """Return keys that nodes may set besides those that Kubernetes lets them.

    Raises:
        ValueError: as parse_node_keys; or a key is one that no node may ever set, or a prefix
            holds less than a whole domain.
    """
    allowed = parse_node_keys(text)
    for key in allowed.keys():  # noqa: SIM118 (no mapping)
        domain, slash, _ = key.partition("/")
        if key.endswith("*") and not slash:
            raise ValueError(f"{key!r}: a prefix needs a whole domain, such as example.k8s.io/*")
        if domain == RESERVED or domain.endswith(f".{RESERVED}"):
            raise ValueError(f"{key!r}: {RESERVED} is there for what no node may set")
    return allowed
