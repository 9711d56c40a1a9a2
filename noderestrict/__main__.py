"""The process: ``noderestrict``, or ``python -m noderestrict``."""

import sys

from noderestrict.serving.signals import SIGNALS


def main() -> int:
    """Run the command line of the process, and return its exit code."""
    if sys.argv[1:2] == ["serve"]:
        # Before the rest is loaded, which takes longest.
        SIGNALS.install()
    from noderestrict import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
