"""The base class of every error that this package raises on purpose."""


class NoderestrictError(Exception):
    """Something outside of the program is wrong; the message is one line for its operator."""


def said(error: BaseException) -> str:
    """Return what an error says; most timeouts say nothing."""
    return str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)
