"""Read files that may be anything, and write key material so that no reader sees half of it."""

import errno
import os
import stat
import tempfile
from pathlib import Path


def read_regular(path: Path, longest: int) -> bytes:
    """Return the content of a regular file; never waits, as opening a FIFO would.

    Args:
        path: of the file, or of a link to one.
        longest: in bytes.

    Raises:
        OSError: it cannot be read, is something else, or is longer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = bytearray()
        # One byte more, to see that there is more; the file may grow meanwhile.
        while piece := os.read(descriptor, longest + 1 - len(content)):
            content += piece
    finally:
        os.close(descriptor)
    if len(content) > longest:
        raise OSError(errno.EFBIG, f"longer than {longest} bytes", str(path))
    return bytes(content)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file in one step, readable by its owner alone unless ``mode`` says otherwise.

    Raises:
        OSError: the directory cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
