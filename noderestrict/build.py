"""What this copy was built from."""

import json
from dataclasses import dataclass
from importlib.resources import files

#: Beside this module; what builds a release or an image writes it: ``{"commit": …, "date": …}``.
FILE = "build.json"


@dataclass(frozen=True, slots=True)
class Build:
    """A build.

    Attributes:
        commit: of the source, as git names it; "" if it is not known.
        date: of the commit, as in RFC 3339; "" if it is not known.
    """

    commit: str = ""
    date: str = ""

    def __str__(self) -> str:
        """Return it as people read it."""
        return ", ".join(filter(None, (self.commit, self.date))) or "from source"


def this_build() -> Build:
    """Return the build of this copy."""
    try:
        found = json.loads((files(__package__) / FILE).read_text("utf-8"))
        return Build(str(found.get("commit", "")), str(found.get("date", "")))
    except (OSError, ValueError, AttributeError):
        # A checkout, or an installation from one.
        return Build()
