"""Standard output that cannot take what is written: another encoding, a full disk, no reader."""

import contextlib
import errno
import io
import os
import sys
from typing import TextIO

_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def prepare() -> None:
    """Make standard output take any character, and open what is closed on nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Even UTF-8 has no form for a name that is not valid text.
        sys.stdout.reconfigure(errors="backslashreplace")


def shows_unicode(otherwise: str = "backslashreplace") -> bool:
    """Return whether standard output can express all characters, and make it fail for none.

    Args:
        otherwise: how it writes those that it cannot, as ``open`` takes it in ``errors``.
    """
    try:
        "…×é\N{GRINNING FACE}".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors=otherwise)
        return False
    return True


def has_colours() -> bool:
    """Return whether standard output shows colours, and its reader wants them."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def silence() -> None:
    """Let standard output go nowhere, so that flushing it at exit does not fail again."""
    _to_nowhere(sys.stdout)


def flush_errors() -> None:
    """Flush standard error; if it takes no more, let it go nowhere, so that the exit code stays."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _to_nowhere(sys.stderr)


def _to_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())


def is_full(error: OSError) -> bool:
    """Return whether an error says that an open file, such as standard output, takes no more."""
    return error.filename is None and error.errno in _TAKES_NO_MORE
