"""A probe: a request that rules must refuse, or that they must let pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from noderestrict.graph.rules import Access
from noderestrict.policy.releases import ALWAYS, Part, Since
from noderestrict.policy.table import RULES
from noderestrict.probes.observed import Observed
from noderestrict.probes.request import Request

_SINCE = {rule.id: rule.since for rule in RULES}

Build = Callable[[Observed], Request]


@dataclass(frozen=True, slots=True)
class Probe:
    """A kind of request, written once as a function under ``@refused`` or ``@passes``.

    Attributes:
        build: returns the request.
        rules: ids of the rules that it tries out.
        hostile: whether one of them must refuse it; otherwise none may.
        since: since when the in-tree plugin refuses it.
        kept: path of the field that makes it hostile. An API server that does not know the field
            drops it, and has nothing to refuse.
        invalid: what the API server says where it refuses the request itself, before webhooks; ""
            if it never does.
        granted: returns what the cluster's authorizers may grant the node: the request then passes
            rightly. None if they cannot grant it.
    """

    build: Build
    rules: tuple[str, ...]
    hostile: bool
    since: Since = ALWAYS
    kept: tuple[str, ...] = ()
    invalid: str = ""
    granted: Callable[[Observed], Access] | None = None

    @property
    def what(self) -> str:
        """What the node asks for, in words."""
        return (self.build.__doc__ or "").partition("\n")[0].rstrip(".")

    def request(self, observed: Observed) -> Request:
        """Return the request of a node.

        Raises:
            MissingError: the cluster lacks the object that it takes.
            InapplicableError: the cluster has nothing that the rules could protect.
        """
        return self.build(observed)


def refused(
    rule: str,
    *,
    part: Part | None = None,
    kept: str = "",
    invalid: str = "",
    granted: Callable[[Observed], Access] | None = None,
) -> Callable[[Build], Probe]:
    """Return a decorator for a request that a rule must refuse.

    Args:
        rule: its id.
        part: of the rule that refuses it; None if the whole rule has always done so.
        kept: path of the hostile field, with dots.
        invalid: as that of Probe.
        granted: as that of Probe.
    """

    def declare(build: Build) -> Probe:
        path = tuple(kept.split(".")) if kept else ()
        return Probe(
            build,
            (rule,),
            hostile=True,
            since=part.since if part else _SINCE[rule],
            kept=path,
            invalid=invalid,
            granted=granted,
        )

    return declare


def passes(*rules: str) -> Callable[[Build], Probe]:
    """Return a decorator for a request that none of some rules may refuse."""

    def declare(build: Build) -> Probe:
        return Probe(build, rules, hostile=False)

    return declare


def probes_of(module: Any) -> list[Probe]:
    """Return the probes of a module in the order of their definition."""
    return [value for value in vars(module).values() if isinstance(value, Probe)]
