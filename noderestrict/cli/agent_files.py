"""The policy files of ``--agents``."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from noderestrict.agents.agents import Agents
from noderestrict.agents.file import Agent
from noderestrict.agents.load import MAX_BYTES, PolicyFileError, merge, parse
from noderestrict.agents.reads import needs_selectors
from noderestrict.cli._errors import UsageError
from noderestrict.pki.files import read_regular
from noderestrict.policy.features import defaults


def add_agents_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that write files for a server."""
    parser.add_argument(
        "--agents",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="policy files that hold service accounts of DaemonSets to their node",
    )


def read_agents(files: Sequence[str], features: Mapping[str, bool] | None = None) -> Agents:
    """Return the agents of some files.

    Args:
        files: their paths.
        features: all feature gates of the API server; None if they are not known yet.

    Raises:
        PolicyFileError: a file is unusable, or needs a newer API server.
    """
    return _merged({file: _text(file) for file in files}, features)


def agents_of(files: Sequence[str]) -> Agents:
    """Return the agents of some files.

    Raises:
        UsageError: a file is unusable.
    """
    try:
        return read_agents(files)
    except PolicyFileError as error:
        raise UsageError(f"--agents {error}") from None


def agents_to_render(
    files: Sequence[str], minor: int | None
) -> tuple[tuple[Agent, ...], dict[str, str]]:
    """Return the agents of some files, and the text of each file by the last part of its path.

    Args:
        files: their paths.
        minor: Kubernetes version of the API server, 1.``minor``; None if it is not known.

    Raises:
        UsageError: a file is unusable, or needs a newer API server; or two have the same name.
    """
    try:
        texts = {file: _text(file) for file in files}
        agents = _merged(texts, None if minor is None else defaults(minor))
    except PolicyFileError as error:
        raise UsageError(f"--agents {error}") from None
    named: dict[str, str] = {}
    for file, text in texts.items():
        name = Path(file).name
        if name in named:
            raise UsageError(f"--agents {file}: another file is called {name}, too")
        named[name] = text.decode()
    return agents.all, named


def _text(file: str) -> bytes:
    try:
        return read_regular(Path(file), MAX_BYTES)
    except (OSError, ValueError) as error:
        raise PolicyFileError(f"{file}: {getattr(error, 'strerror', None) or error}") from None


def _merged(texts: Mapping[str, bytes], features: Mapping[str, bool] | None) -> Agents:
    agents = Agents(merge([(file, parse(text, file)) for file, text in texts.items()]))
    if features is not None and (problem := needs_selectors(agents, features)):
        raise PolicyFileError(f"{', '.join(texts)}: {problem}")
    return agents
