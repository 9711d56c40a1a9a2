"""Lines are written beside the rest, whoever reads them, or not."""

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

from noderestrict.telemetry.writer import Writer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        # The test may have closed it.
        with contextlib.suppress(OSError):
            os.close(descriptor)


class Count:
    lines = 0

    def __call__(self, lines: int) -> None:
        self.lines += lines


def read_all(descriptor: int) -> bytes:
    found = b""
    while piece := os.read(descriptor, 65536):
        found += piece
    return found


def filled(descriptor: int) -> int:
    """Fill a pipe; return how many bytes it took."""
    size = 0
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(descriptor, b"-" * 1024)
    os.set_blocking(descriptor, True)
    return size


def test_lines_come_in_order_and_all_of_them_before_the_end(pipe: tuple[int, int]) -> None:
    dropped = Count()
    writer = Writer(pipe[1], dropped)
    assert all(writer.write(f"{number} \u00e4 \ud800\n") for number in range(500))
    writer.close(10)
    os.close(pipe[1])
    expected = "".join(f"{number} \u00e4 \\ud800\n" for number in range(500))
    assert read_all(pipe[0]).decode() == expected
    assert dropped.lines == 0
    assert not writer.write("late\n")
    assert dropped.lines == 1


def test_a_reader_that_stops_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    full = filled(pipe[1])
    dropped = Count()
    writer = Writer(pipe[1], dropped, longest_queue=10_000)
    line = "x" * 99 + "\n"
    taken = sum(writer.write(line) for _ in range(5000))
    assert taken == 100
    assert dropped.lines == 4900
    writer.close(0.05)
    assert writer._thread.is_alive()
    found = b""
    while len(found) < full + taken * 100:
        found += os.read(pipe[0], 65536)
    writer._thread.join(10)
    assert not writer._thread.is_alive()
    assert found[full:] == line.encode() * taken


def test_when_the_reader_goes_on_so_do_the_lines(pipe: tuple[int, int]) -> None:
    writer = Writer(pipe[1], Count(), longest_queue=1000)
    line = "x" * 99 + "\n"
    while writer.write(line):
        pass
    thread = threading.Thread(target=lambda: read_all(pipe[0]), daemon=True)
    thread.start()
    while not writer.write(line):
        pass
    writer.close(10)
    assert not writer._thread.is_alive()
    os.close(pipe[1])
    thread.join(10)


def test_a_reader_that_has_gone_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    dropped = Count()
    writer = Writer(pipe[1], dropped)
    for _ in range(300):
        writer.write("line\n")
    writer.close(10)
    assert not writer._thread.is_alive()
    assert dropped.lines == 300


def test_a_descriptor_that_others_made_nonblocking_gets_every_line(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    dropped = Count()
    writer = Writer(pipe[1], dropped)
    lines = 3000
    for _ in range(lines):
        writer.write("x" * 99 + "\n")
    found = b""
    while len(found) < lines * 100:
        found += os.read(pipe[0], 65536)
    writer.close(10)
    assert dropped.lines == 0
