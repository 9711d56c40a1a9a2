"""The requests of an agent that wait for a server.

API servers may reach the server through a network plugin that waits so: if all nodes go off,
neither comes back. The mode of the policy does not matter then, since nobody answers.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from noderestrict.agents.file import Agent, Operation, Source, Unnamed, Write
from noderestrict.render.agents import webhooks

#: The first minor version whose API servers put the node of a pod into its token.
NODE_IN_TOKENS_SINCE = 30
#: Subresources that no start needs, and those that nothing creates.
_LATER = ("eviction",)
_NEVER_CREATED = ("ephemeralcontainers", "resize", "scale", "status")


def waiting(agent: Agent, *, node_in_tokens: bool = True) -> list[str]:
    """Return the writes that a policy allows, but an API server still asks about.

    Args:
        agent: of a checked policy.
        node_in_tokens: whether the API server puts the node of a pod into its token.
    """
    if not node_in_tokens and any(user.account is not None for user in agent.users):
        agent = replace(agent, node=(Source.POD,))
    # All is asked about where the condition would get too long.
    whole = bool(agent.write) and _expression(agent, *agent.write) == _expression(agent)
    found: dict[str, None] = {}
    for write in agent.write:
        for one in _single(write):
            if text := _shown(one) if whole else _asked(agent, one):
                found[text] = None
    return list(found)


def _single(write: Write) -> Iterator[Write]:
    """Yield an entry for each kind of request that may belong to a start."""
    for group in write.api_groups:
        for resource in write.resources:
            for operation in write.operations:
                if _may_be_needed(resource.partition("/")[2], operation):
                    yield replace(
                        write, api_groups=(group,), resources=(resource,), operations=(operation,)
                    )


def _may_be_needed(sub_resource: str, operation: Operation) -> bool:
    if operation == Operation.CONNECT or sub_resource in _LATER:
        return False
    return operation != Operation.CREATE or sub_resource not in _NEVER_CREATED


def _asked(agent: Agent, write: Write) -> str:
    """Return what of an entry no condition tells, "" if it tells all of it."""
    fields = write.fields if write.operations == (Operation.UPDATE,) else None
    if not _is_told(agent, replace(write, fields=None)):
        return _shown(write)
    nothing = _expression(agent, replace(write, fields=()))
    untold = [
        field
        for field in fields or ()
        if _expression(agent, replace(write, fields=(field,))) == nothing
    ]
    return f"{_shown(write)} of {', '.join(untold)}" if untold else ""


def _is_told(agent: Agent, write: Write) -> bool:
    return _expression(agent, write) != _expression(agent)


def _expression(agent: Agent, *writes: Write) -> str:
    """Return the condition for an agent that may make only some writes."""
    alone = replace(agent, write=writes, unnamed_writes=Unnamed.REFUSE)
    ((_, condition),) = webhooks([alone]).values()
    expression: str = condition["expression"]
    return expression


def _shown(write: Write) -> str:
    plural, slash, sub_resource = write.resources[0].partition("/")
    group = f".{write.api_groups[0]}" if write.api_groups[0] else ""
    return f"{write.operations[0]} {plural}{group}{slash}{sub_resource}"
