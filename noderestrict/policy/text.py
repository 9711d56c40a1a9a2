"""Make untrusted text safe to show.

Control characters start lines and colours, direction marks and invisible characters make text look
different, some readers break lines at line and paragraph separators, and half a surrogate pair
cannot be encoded. Python counts all of them as not printable.
"""

import json
from typing import Any

import msgspec


def printable(text: str) -> str:
    """Return a text with each unprintable character escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, in ASCII unless all of it is printable.

    Args:
        value: of JSON's types; any other type is converted with str.
    """
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (UnicodeEncodeError, TypeError, RecursionError):
        text = "\ud800"
    # JSON requires few escapes but allows all.
    return text if text.isprintable() else json.dumps(value, default=str, separators=(",", ":"))
