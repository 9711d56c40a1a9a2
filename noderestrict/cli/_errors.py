"""What ends a command."""

import re

from noderestrict.errors import NoderestrictError
from noderestrict.policy.text import printable

#: A value is recognised by far less of it.
_LONGEST_WORD = 300
_LONG_WORD = re.compile(rf"(\S{{{_LONGEST_WORD}}})\S+")


class UsageError(NoderestrictError):
    """The command cannot run as asked; the message names the flag or file, and the value."""


def shown(message: str) -> str:
    """Return an error in one printable line, in which long words are cut off."""
    return _LONG_WORD.sub(r"\1…", printable(message))
