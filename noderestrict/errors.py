"""The base class of every error that this package raises on purpose."""


class NoderestrictError(Exception):
    """Something outside of the program is wrong; the message is one line for its operator."""
