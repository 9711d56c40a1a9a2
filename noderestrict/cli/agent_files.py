"""Read the policy files of ``--agents``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from noderestrict.agents.agents import Agents
from noderestrict.agents.load import MAX_BYTES, PolicyFileError, merge, parse
from noderestrict.agents.reads import needs_selectors
from noderestrict.pki.files import read_regular


def read_agents(files: Sequence[str], features: Mapping[str, bool] | None = None) -> Agents:
    """Return the agents of some files.

    Args:
        files: their paths.
        features: all feature gates of the API server; None if they are not known yet.

    Raises:
        PolicyFileError: a file is unusable, or needs a newer API server.
    """
    policies = []
    for file in files:
        try:
            text = read_regular(Path(file), MAX_BYTES)
        except (OSError, ValueError) as error:
            raise PolicyFileError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
        policies.append((file, parse(text, file)))
    agents = Agents(merge(policies))
    if features is not None and (problem := needs_selectors(agents, features)):
        raise PolicyFileError(f"--agents {', '.join(files)}: {problem}")
    return agents
