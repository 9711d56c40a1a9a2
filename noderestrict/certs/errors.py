"""What ends the work on certificates."""

from noderestrict.errors import NoderestrictError


class CertsError(NoderestrictError):
    """Something is missing, or going on would deny nodes."""
