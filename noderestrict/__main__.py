"""The process: ``noderestrict``, or ``python -m noderestrict``."""

import os
import sys

from noderestrict.serving.signals import SIGNALS

#: As shells report a process that SIGINT ended.
INTERRUPTED = 130


def main() -> int:
    """Run the command line of the process, and return its exit code."""
    _open_standard_files()
    if sys.argv[1:2] == ["serve"]:
        # Before the rest is loaded, which takes longest.
        SIGNALS.install()
    try:
        from noderestrict import cli

        return cli.main()
    except KeyboardInterrupt:
        return INTERRUPTED


def _open_standard_files() -> None:
    """Open what is closed of standard input, output and error, so that no socket gets its number.

    What is written to them blindly would go to a peer, and libuv aborts when it closes one.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    sys.exit(main())
