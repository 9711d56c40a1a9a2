"""Text for terminals of 80 columns."""

import textwrap

from noderestrict.policy.text import printable

WIDTH = 80


def wrapped(text: str, indent: int, hanging: int | None = None) -> list[str]:
    """Return a text in lines.

    Args:
        text: may hold anything.
        indent: of the first line.
        hanging: indent of the others; None for the same.
    """
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent if hanging is None else hanging),
        break_on_hyphens=False,
    )


def shortened(text: str, width: int) -> str:
    """Return a text that is not longer than a column."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
