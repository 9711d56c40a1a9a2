"""What the command lines of API servers say."""

from collections.abc import Sequence

_BOOTSTRAP_FLAG = "--enable-bootstrap-token-auth"
_GATES_FLAG = "--feature-gates"
#: Of a beta gate that is not named itself.
_ALL_BETA = "AllBeta"
_FALSE = ("false", "f", "0")


def takes_bootstrap_tokens(command: Sequence[str]) -> bool:
    """Return whether an API server authenticates bootstrap tokens."""
    found = [word for word in command if word.partition("=")[0] == _BOOTSTRAP_FLAG]
    return bool(found) and found[-1].partition("=")[2].lower() not in _FALSE


def switches_off(command: Sequence[str], gate: str) -> bool:
    """Return whether an API server runs without a beta feature that is on by default.

    Source: Set of k8s.io/component-base/featuregate; each flag adds to those before it.
    """
    given: dict[str, str] = {}
    for word, following in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == _GATES_FLAG:
            for entry in (value if equals else following).split(","):
                # From Kubernetes 1.31 on, a component may stand before the name.
                key, _, state = entry.strip().rpartition(":")[2].partition("=")
                given[key.strip()] = state.strip().lower()
    return given.get(gate, given.get(_ALL_BETA, "")) in _FALSE
