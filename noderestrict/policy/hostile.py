"""Read untrusted input with libraries that may raise anything."""

import contextlib
from collections.abc import Iterator

#: What Rust libraries raise for their own bugs. It is not an Exception, and each library has its
#: own class for it, which none of them exports.
_PANIC = "PanicException"
_LONGEST = 200


def is_failure(error: BaseException) -> bool:
    """Return whether an error comes from the work itself; others end the task or the process."""
    return isinstance(error, Exception) or type(error).__name__ == _PANIC


def in_words(error: BaseException) -> str:
    """Return the text of an error, where it is Python's own or YAML's in other words."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
    place, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if place is not None and problem:
        return f"line {place.line + 1}: {problem}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def brief(error: BaseException) -> str:
    """Return an error as one short line: its text, with its type where that adds something."""
    text = " ".join(in_words(error).split())[:_LONGEST]
    is_yaml = hasattr(error, "problem_mark")
    if (is_yaml or isinstance(error, ValueError | OSError | RecursionError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def refused_as(refusal: type[Exception], message: str, *, why: bool = True) -> Iterator[None]:
    """Turn whatever the body raises into one error; an error of that type passes unchanged.

    Args:
        refusal: the type of the error.
        message: its text.
        why: append the library's message, which may quote the input.
    """
    try:
        yield
    except refusal:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise refusal(f"{message}: {brief(error)}" if why else message) from None
