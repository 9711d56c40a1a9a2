"""Read the events of an audit log."""

from collections.abc import Iterator

from noderestrict.replay.sources import Document, Unreadable, lines, opened, too_long


def events(file: str) -> Iterator[Document | Unreadable]:
    """Yield the JSON of each audit event of a file, in its order, and what cannot be read.

    Args:
        file: its path, ``-`` for stdin; plain or gzip.
    """
    is_audit_log = False
    number = 0
    try:
        with opened(file) as stream:
            for number, line in lines(stream):
                if line is None:
                    yield too_long(file, number)
                    continue
                is_audit_log = is_audit_log or b'"Event"' in line
                if line.strip():
                    yield Document(file, number, line)
    except OSError as error:
        yield Unreadable(file, 0, error.strerror or str(error))
    else:
        if number and not is_audit_log:
            problem = "it holds no audit events: replay reads one JSON object per line"
            yield Unreadable(file, 0, problem)
