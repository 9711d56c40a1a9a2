"""Is the API server told to ask about each agent, and about all that its policy holds?"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from noderestrict.agents.file import Agent, Unnamed
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.differences import Difference
from noderestrict.doctor.findings import Finding, failed, passed
from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.doctor.restore import restore
from noderestrict.render.agents import is_for_agents
from noderestrict.render.registration import agent_webhooks


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield how the agents' webhooks differ from the rendered ones."""
    webhooks = await cluster.webhooks()
    agents = cluster.options.agents.agents
    again = await restore(cluster)
    found = list(check_webhooks(webhooks, agents.all, again))
    for finding in found:
        yield finding
    if not found:
        yield passed("it has the agents' webhooks as rendered")
        closed = [one.name for one in agents.all if one.unnamed_writes == Unnamed.REFUSE]
        if closed:
            yield passed(f"every write of these agents is asked about: {', '.join(closed)}")


def check_webhooks(
    installed: Sequence[Mapping[str, Any]], agents: Sequence[Agent], again: str
) -> Iterator[Finding]:
    """Yield how the agents' webhooks differ from the rendered ones.

    Args:
        installed: all webhooks of the registration.
        agents: of the policies.
        again: the command that installs the rendered ones.
    """
    of_nodes = [one for one in installed if not is_for_agents(one)]
    of_agents = [one for one in installed if is_for_agents(one)]
    # They are rendered with all else as the webhooks for nodes have it.
    like: Mapping[str, Any] = of_nodes[0] if of_nodes else {}
    expected = agent_webhooks(
        agents,
        like.get("clientConfig") or {},
        like.get("failurePolicy") or "Fail",
        like.get("timeoutSeconds") or 3,
    )
    for one in registration_differences({"webhooks": of_agents}, {"webhooks": expected}):
        yield failed(_text(of_agents, one), "install the rendered ones again", again)


def _text(installed: Sequence[Mapping[str, Any]], difference: Difference) -> str:
    """Return what differs, with the name of the webhook."""
    match difference.path.split("/")[1:]:
        case [_, index, _, *_] as steps if index.isdecimal():
            name = installed[int(index)].get("name")
            return f"{name}: {replace(difference, path='/'.join(steps[2:])).text}"
    rendered = difference.rendered
    missing = rendered if isinstance(rendered, list) else [rendered]
    names = ", ".join(str(one["name"]) for one in missing)
    return f"{names}: missing, so that the API server does not ask about what it is for"


CHECK = Check("agent registration", "Is the API server told to ask about each agent?", check)
