"""What goes wrong between us and the API server."""

from noderestrict.errors import NoderestrictError


class ClusterError(NoderestrictError):
    """The API server did not answer, or answered with an error; ``code`` is 0 for no answer."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class ConnectionFailedError(ClusterError):
    """The configuration is unusable; the message says why."""
