"""The policies of agents that a cluster is examined for, and what to type to change them."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from noderestrict.agents.agents import Agents
from noderestrict.agents.file import Agent


@dataclass(frozen=True, slots=True)
class AgentPolicies:
    """The policies of some files.

    Attributes:
        agents: of all files.
        file_of: path of the file with an agent's policy, by the agent's name.
        texts: of the files, by the last part of their path.
    """

    agents: Agents = field(default_factory=Agents)
    file_of: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Agent]:
        """Yield each agent."""
        return iter(self.agents.all)

    @property
    def flags(self) -> list[str]:
        """The flag that names the files; none without any."""
        files = dict.fromkeys(self.file_of.values())
        return ["--agents", *files] if files else []

    def editing(self, agent: Agent) -> str:
        """Return the command that edits an agent's policy."""
        return shlex.join(["sudoedit", self.file_of[agent.name]])


def accounts_of(agent: Agent) -> list[tuple[str, str]]:
    """Return namespace and name of each service account that an agent may be."""
    return [user.account for user in agent.users if user.account is not None]


def is_enforced(agent: Agent) -> bool:
    """Tell whether a policy says that its refusals count; the server's mode may be a weaker one."""
    return agent.mode in (None, "enforce")
