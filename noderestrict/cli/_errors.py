"""What ends a command."""

from noderestrict.errors import NoderestrictError


class UsageError(NoderestrictError):
    """The command cannot run as asked; the message names the flag or file, and the value."""
