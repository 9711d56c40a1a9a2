"""Read untrusted files, and write key material atomically."""

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


def read_regular(path: Path, longest: int) -> bytes:
    """Return the content of a regular file; never blocks, as opening a FIFO would.

    Args:
        path: of the file, or of a link to one.
        longest: the maximum length in bytes.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too long.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = bytearray()
        # Read one byte more than allowed to notice longer files; the file may grow meanwhile.
        while piece := os.read(descriptor, longest + 1 - len(content)):
            content += piece
    finally:
        os.close(descriptor)
    if len(content) > longest:
        raise OSError(errno.EFBIG, f"longer than {longest} bytes", str(path))
    return bytes(content)


def make_own_directory(path: Path) -> None:
    """Make a directory that only its owner may write to, unless it exists.

    Raises:
        OSError: the path is a link or a file, belongs to another user, or others may write to it.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory, or a link to one", str(path))
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "belongs to another user", str(path))
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "others may write into it", str(path))


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file atomically, readable only by its owner unless ``mode`` allows more.

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
