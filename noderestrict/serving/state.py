"""What a server is doing now, and whether it is ready."""

from collections.abc import Callable, Mapping

from noderestrict.agents.agents import InForce
from noderestrict.serving.limits import InFlight, Limits
from noderestrict.serving.modes import Modes


class ServerState:
    """The one mutable state that the parts of a server share; only its event loop changes it.

    Args:
        limits: of the server.
        modes: of the rules; all are enforced if None.
        agents: that are held to their node; none if None.

    Attributes:
        modes: in effect from the next request on.
        in_force: the agents, likewise.
        in_flight: requests and bytes.
        lag: seconds that the event loop is late; every deadline is earlier by that.
        draining: whether the server is shutting down: each answer closes its connection.
    """

    __slots__ = ("_conditions", "_details", "draining", "in_flight", "in_force", "lag", "modes")

    def __init__(
        self, limits: Limits, modes: Modes | None = None, agents: InForce | None = None
    ) -> None:
        self.modes = modes or Modes()
        self.in_force = agents or InForce()
        self.in_flight = InFlight(limits)
        self.lag = 0.0
        self.draining = False
        self._conditions: dict[str, Callable[[], bool]] = {}
        self._details: dict[str, Callable[[], str]] = {}

    def require(
        self, name: str, condition: Callable[[], bool], detail: Callable[[], str] | None = None
    ) -> None:
        """Be ready only while a condition holds.

        Args:
            name: of the condition, as ``/readyz?verbose`` shows it.
            condition: evaluated by each readiness check.
            detail: returns more about it.
        """
        self._conditions[name] = condition
        if detail is not None:
            self._details[name] = detail

    def details(self) -> Mapping[str, str]:
        """Return more about some of the conditions, by name."""
        return {name: detail() for name, detail in self._details.items()}

    def checks(self) -> Mapping[str, bool]:
        """Return whether each condition holds, by name."""
        met = {name: condition() for name, condition in self._conditions.items()}
        return {"shutdown": not self.draining, **met}
