"""What ends a command."""


class UsageError(Exception):
    """The command cannot run as asked; the message names the flag or file, and the value."""
