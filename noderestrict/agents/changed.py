"""Which fields an update changes beside those that may change."""

from collections.abc import Iterator, Mapping

from noderestrict.agents.paths import FieldPath
from noderestrict.policy.semantic import Comparison, Fields, Value

#: What the API server itself changes with each write.
BOOKKEEPING = tuple(("metadata", key) for key in ("generation", "managedFields", "resourceVersion"))


class Changeable:
    """The fields that may change.

    A missing value equals null, an empty object and an empty list; but not "", 0 or false: the key
    of a label alone may attract pods.

    Args:
        paths: of the fields, each with everything below it.
    """

    def __init__(self, paths: tuple[FieldPath, ...]) -> None:
        self._shown = ", ".join(map(str, paths)) or "nothing"
        self._exact = {
            *BOOKKEEPING,
            *(path.steps for path in paths if not any("*" in step for step in path.steps)),
        }
        self._tops = frozenset(path[0] for path in self._exact if len(path) == 1)
        below = {path for path in self._exact if len(path) == 2}
        self._below = {
            top: frozenset(key for other, key in below if other == top) for top in dict(below)
        }
        self._globs = tuple(path for path in paths if path.steps not in self._exact)
        self._fields = Fields(
            lists={path.steps[:count]: key for path in paths for count, key in path.lists},
            scalars=True,
        )

    def __contains__(self, path: object) -> bool:
        """Return whether exactly these steps lead to what may change."""
        if path in self._exact:
            return True
        return bool(self._globs) and any(glob.matches(path) for glob in self._globs)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Return the paths as they were written."""
        return self._shown

    def others(self, old: Mapping[str, Value], new: Mapping[str, Value]) -> Iterator[str]:
        """Yield the paths of other fields that differ, as people write them.

        Args:
            old: the fields of the existing object.
            new: those of the new one.

        Raises:
            IncomparableError: there is too much to compare.
            msgspec.MsgspecError, UnicodeDecodeError, RecursionError: an object is undecodable.
        """
        if self._seems_kept(old, new):
            return iter(())
        return Comparison(self._fields, self).of_fields(old, new)

    def _seems_kept(self, old: Mapping[str, Value], new: Mapping[str, Value]) -> bool:
        """Return whether the other fields are written alike, as in nearly all honest updates."""
        if len(old) != len(new):
            return False
        for top, becomes in new.items():
            if top not in old:
                return False
            if top in self._tops:
                continue
            was = old[top]
            # In Python, true equals 1.
            if type(was) is not type(becomes):
                return False
            below = self._below.get(top)
            if below is None or not isinstance(was, dict) or not isinstance(becomes, dict):
                if was != becomes:
                    return False
            elif len(was) != len(becomes):
                return False
            else:
                for key, value in becomes.items():
                    if key not in was or (key not in below and was[key] != value):
                        return False
        return True
