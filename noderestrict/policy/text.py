"""Text that others chose, as it may be shown.

Control characters, of ASCII and above, start lines and colours; marks of direction and invisible
characters show another text than is there; line and paragraph separators are line ends to some;
half a surrogate pair cannot be encoded. Python calls all of them not printable.
"""

import json
from typing import Any

import msgspec


def printable(text: str) -> str:
    """Return a text with an escape, as in Python, for each character that is not printable."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, in ASCII unless all that it holds is printable.

    Args:
        value: of JSON's types; another one is shown as its text.
    """
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (UnicodeEncodeError, TypeError, RecursionError):
        text = "\ud800"
    # JSON need not escape much, but may escape anything.
    return text if text.isprintable() else json.dumps(value, default=str, separators=(",", ":"))
