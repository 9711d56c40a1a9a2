"""Write files that were rendered."""

from collections.abc import Mapping
from pathlib import Path

from noderestrict.cli._errors import UsageError


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write all files below a directory, and print their paths.

    Raises:
        UsageError: a file cannot be written.
    """
    for path, text in sorted(files.items()):
        file = directory / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror or error}") from None
        print(file)
