"""Read files that flags name, and write files that were rendered."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from noderestrict.cli._errors import UsageError
from noderestrict.policy.hostile import refused_as

T = TypeVar("T")


def read_documents(flag: str, file: Path, find: Callable[[list[Any]], T]) -> T:
    """Return what is found among the documents of a YAML file.

    Args:
        flag: that names the file, with its dashes.
        file: its path; ``-`` is standard input.
        find: raises for what is not there.

    Raises:
        UsageError: the file cannot be read, is no YAML, or does not hold it.
    """
    import yaml

    at = f"{flag} {file}"
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise UsageError(f"{at}: {error.strerror or error}") from None
    with refused_as(UsageError, at):
        return find(list(yaml.safe_load_all(text.decode())))


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write all files below a directory, and print their paths.

    Raises:
        UsageError: a file cannot be written.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory}: not a directory")
    for path, text in sorted(files.items()):
        file = directory / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from None
        print(file)


def read_ca(file: Path | None) -> bytes | None:
    """Return the CA bundle of ``--ca-bundle``; None if there is no file.

    Raises:
        UsageError: the file holds none.
    """
    from noderestrict.pki.bundle import certificates
    from noderestrict.pki.check import KeyPairError

    if file is None:
        return None
    try:
        bundle = file.read_bytes()
        found = certificates(bundle)
    except OSError as error:
        raise UsageError(f"--ca-bundle {file}: {error.strerror or error}") from None
    except KeyPairError as error:
        raise UsageError(f"--ca-bundle {file}: {error}") from None
    if not found:
        raise UsageError(f"--ca-bundle {file}: there is no certificate")
    return bundle
