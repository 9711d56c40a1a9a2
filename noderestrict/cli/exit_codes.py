"""What the exit code of each command means: for its help, and for docs/reference."""

from collections.abc import Mapping

#: Of every command, unless its own table says more.
COMMON: Mapping[int, str] = {
    0: "it did what was asked",
    2: "a flag, a file, the cluster or the output is unusable; standard error says which",
    130: "interrupted with Ctrl-C",
}

_WRITTEN = {0: "all files are written"}
_CERTIFICATE = {0: "the certificate is good, and is where it belongs"}

#: By the words of the command.
EXIT_CODES: Mapping[str, Mapping[int, str]] = {
    "agents find": {
        0: "no agent has a critical or high right that nothing holds",
        1: "an agent has one",
        2: "none was seen, but something could not be seen",
    },
    "agents learn": {
        0: "all that agents did is explained, or allowed by --unexplained any",
        1: "something is not explained",
        2: "some input cannot be read, or has nothing that an agent did",
    },
    "certs answer": {0: "the API server gets an answer", 1: "it gets none"},
    "certs bootstrap": _CERTIFICATE,
    "certs check": {0: "all is well", 1: "something is wrong, or expires soon"},
    "certs renew": _CERTIFICATE,
    "certs rotate": _CERTIFICATE,
    "completion": {0: "the script is written"},
    "doctor": {
        0: "every check was made, and none failed",
        1: "a check failed",
        2: "no check failed, but one could not be made",
    },
    "exposure": {
        0: "the report is written",
        1: "with --fail-on: a worker leads to cluster-admin",
        2: "with --fail-on: none does, but something could not be seen",
    },
    "graph reachable": {0: "the node is known", 2: "the node is unknown"},
    "graph who": {0: "the object is known", 2: "the object is unknown"},
    "graph why": {
        0: "the node reaches the object",
        1: "it does not",
        2: "the node or the object is unknown",
    },
    "render": _WRITTEN,
    "render authorizer": _WRITTEN,
    "render overlay": {0: "the objects are written"},
    "render policies": _WRITTEN,
    "render values": {0: "the values are written"},
    "replay": {
        0: "all is as expected",
        1: "something is not, or is denied with --fail-on-denied",
        2: "some input cannot be read, or nothing in it that is of nodes could be judged",
    },
    "serve": {0: "a signal ended it"},
    "verify": {
        0: "every rule holds",
        1: "a rule does not hold",
        2: "that could not be told of a rule",
    },
    "version": {0: "the version is written"},
}


def exit_codes(command: str) -> dict[int, str]:
    """Return the meaning of each exit code of a command, by its words; the common ones for ""."""
    own = EXIT_CODES.get(command, {})
    found = {**COMMON, **own}
    if 2 in own:
        found[2] = f"{own[2]}; or {COMMON[2]}"
    return dict(sorted(found.items()))
