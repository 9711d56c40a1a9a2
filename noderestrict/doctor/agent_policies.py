"""The policies of agents that a cluster is examined for, and what to type to change them."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from noderestrict.agents.agents import Agents
from noderestrict.agents.file import Agent
from noderestrict.agents.load import merge, parse
from noderestrict.rbac.subjects import AUTHENTICATED, User, service_account


@dataclass(frozen=True, slots=True)
class AgentPolicies:
    """The policies of some files.

    Attributes:
        agents: of all files.
        file_of: path of the file with an agent's policy, by the agent's name.
        texts: of the files, by the last part of their path; "" for one that cannot be read.
        origin: where the cluster has the files; "" for those that were given.
        saving: the commands that save these files here.
        problem: why those of the cluster are not known, "" if they are, or if there are none.
    """

    agents: Agents = field(default_factory=Agents)
    file_of: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    saving: tuple[str, ...] = ()
    problem: str = ""

    def __bool__(self) -> bool:
        """Return whether any agent is held."""
        return bool(self.agents)

    def __iter__(self) -> Iterator[Agent]:
        """Yield each agent."""
        return iter(self.agents.all)

    @property
    def flags(self) -> list[str]:
        """The flag that names the files; none without any."""
        files = dict.fromkeys(self.file_of.values())
        if self.problem:
            return ["--agents", "FILE"]
        return ["--agents", *files] if files else []

    def editing(self, agent: Agent) -> str:
        """Return the command that edits an agent's policy, once it is saved."""
        return shlex.join(["sudoedit", self.file_of[agent.name]])


def policies(texts: Mapping[str, bytes], paths: Mapping[str, str] | None = None) -> AgentPolicies:
    """Return the policies of some files.

    Args:
        texts: of the files, by name.
        paths: of the files, by name; None if they are not saved yet.

    Raises:
        PolicyFileError: a file is unusable.
    """
    found = [(name, parse(text, name)) for name, text in texts.items()]
    file_of = {
        agent.name: name if paths is None else paths[name]
        for name, policy in found
        for agent in policy.agents
    }
    return AgentPolicies(
        Agents(merge(found)), file_of, {name: text.decode() for name, text in texts.items()}
    )


def accounts_of(agent: Agent) -> list[tuple[str, str]]:
    """Return namespace and name of each service account that an agent may be."""
    return [user.account for user in agent.users if user.account is not None]


def users_of(agent: Agent) -> list[User]:
    """Return who an agent may be, as RBAC sees it; of a prefix, what all such users have."""
    return [
        service_account(*user.account)
        if user.account is not None
        else User(user.prefix or "", frozenset((user.group or "", AUTHENTICATED)))
        for user in agent.users
    ]
