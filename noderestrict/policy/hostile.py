"""Read what others wrote with libraries that may raise anything for it."""

import contextlib
from collections.abc import Iterator

#: What libraries in Rust raise for a defect of their own. It is no Exception, and each library has
#: a class of its own for it, which none exports.
_PANIC = "PanicException"
_LONGEST = 200


def is_failure(error: BaseException) -> bool:
    """Tell whether an error comes from the work itself; the others end the task or the process."""
    return isinstance(error, Exception) or type(error).__name__ == _PANIC


def brief(error: BaseException) -> str:
    """Return an error as one short line: its text, and its type where that says more."""
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def refused_as(refusal: type[Exception], message: str, *, why: bool = True) -> Iterator[None]:
    """Turn whatever the body raises into one refusal; a refusal of that type stays as it is.

    Args:
        refusal: its type.
        message: its text.
        why: add what the library said, which may quote what it read.
    """
    try:
        yield
    except refusal:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise refusal(f"{message}: {brief(error)}" if why else message) from None
