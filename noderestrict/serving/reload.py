"""Follow the configuration file and the policies of agents.

Modes of rules and policies take effect, other changes need a restart.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from noderestrict.agents.agents import Agents
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.serving.modes import Modes
from noderestrict.serving.state import ServerState
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What one read of the file brings.

    Attributes:
        modes: returns those of the rules; raises ValueError if they cannot take effect.
        agents: that are held to their node, as their files are now.
        need_restart: texts of the running and of the new value of each other setting that differs
            from what the server runs with, by its name.
    """

    modes: Callable[[], Modes]
    need_restart: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    agents: Agents = field(default_factory=Agents)


async def follow_configuration(
    state: ServerState,
    metrics: Metrics,
    read: Callable[[], Reloaded],
    seconds: float,
    *,
    changed: Callable[[Agents], None] = lambda _: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Read the configuration again and again; its modes and agents hold from the next request on.

    A file that cannot be used changes nothing and is logged once. So is each change that needs a
    restart, until the file has another value.

    Args:
        state: of the server whose modes are set.
        metrics: counted into.
        read: reads the file once, in a thread; what it raises rejects the file.
        seconds: between reads.
        changed: told of agents that differ from the former ones, in a thread.
        sleep: waits so many seconds.
    """
    follower = _Follower(state, metrics)
    while True:
        await sleep(seconds)
        try:
            reloaded = await asyncio.to_thread(read)
            follower.say_what_needs_a_restart(reloaded.need_restart)
            modes = reloaded.modes()
        except BaseException as error:
            if not is_failure(error):
                raise
            follower.reject(brief(error))
        else:
            follower.accept(modes)
            if follower.accept_agents(reloaded.agents):
                await asyncio.to_thread(changed, reloaded.agents)


class _Follower:
    """Applies what was read, and logs each fact once."""

    def __init__(self, state: ServerState, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics
        self._problem = ""
        self._said: dict[str, tuple[str, str]] = {}

    def say_what_needs_a_restart(self, changed: Mapping[str, tuple[str, str]]) -> None:
        for name, (running, wanted) in changed.items():
            if self._said.get(name) != (running, wanted):
                self._metrics.config_needs_restart.inc()
                LOGGER.warning(
                    "a changed setting needs a restart",
                    extra={"setting": name, "running": running, "configured": wanted},
                )
        self._said = dict(changed)

    def reject(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._metrics.config_refused.inc()
            LOGGER.error(
                "configuration rejected",
                extra={"problem": problem, "in_effect": "the last good one"},
            )

    def accept(self, modes: Modes) -> None:
        self._problem = ""
        if modes != self._state.modes:
            self._state.modes = modes
            self._metrics.config_loaded.inc()
            LOGGER.info(
                "rule modes", extra={"default": modes.default, "by_rule": dict(modes.by_rule)}
            )

    def accept_agents(self, agents: Agents) -> bool:
        """Let agents be held, and return whether they are others than before."""
        in_force = self._state.in_force
        if agents.all == in_force.agents.all:
            return False
        in_force.agents = agents
        self._metrics.follow_agents(in_force)
        self._metrics.config_loaded.inc()
        LOGGER.info("agents", extra={"agents": [agent.name for agent in agents.all]})
        return True
