"""Expressions with one operand of ``&&`` less."""

from collections.abc import Iterator
from itertools import pairwise

_OPEN, _CLOSE, _QUOTES = "([{", ")]}", "'\""


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Yield what separates expressions, with its position; texts in quotes are skipped."""
    at = 0
    while at < len(text):
        if text[at] in _QUOTES:
            quote = text[at]
            at += 1
            while text[at] != quote:
                at += 2 if text[at] == "\\" else 1
        elif text[at : at + 2] in ("&&", "||"):
            yield at, text[at : at + 2]
            at += 1
        elif text[at] in "?:," or text[at] in _OPEN + _CLOSE:
            yield at, text[at]
        at += 1


def operands(text: str) -> list[tuple[int, int]]:
    """Return where the operands of every ``&&`` begin and end, at any depth."""
    found: list[tuple[int, int]] = []
    levels: list[list[tuple[int, str]]] = [[(0, "")]]
    for at, token in [*_tokens(text), (len(text), "end")]:
        if token and token in _OPEN:
            levels.append([(at + 1, "")])
            continue
        levels[-1].append((at, token))
        if (token and token in _CLOSE) or token == "end":
            found += _of_level(levels.pop())
    return found


def _of_level(separators: list[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    for (start, before), (end, after) in pairwise(separators):
        if "&&" in (before, after):
            yield start + len(before), end


def mutants(text: str) -> Iterator[str]:
    """Yield an expression once for each operand of ``&&``, with ``true`` in its place."""
    for start, end in operands(text):
        yield f"{text[:start]} true {text[end:]}"
