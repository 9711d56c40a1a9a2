"""All probes, by the rules that they try out."""

from collections.abc import Set

from noderestrict.policy.releases import LATEST, Release
from noderestrict.policy.table import RULES
from noderestrict.probes import (
    certificates,
    events,
    leases,
    nodes,
    pods,
    resourceslices,
    storage,
    tokens,
)
from noderestrict.probes.probe import Probe, probes_of

#: Every probe; those that must be refused come before those that must pass.
PROBES: tuple[Probe, ...] = tuple(
    sorted(
        (
            probe
            for module in (
                leases,
                nodes,
                pods,
                storage,
                tokens,
                resourceslices,
                certificates,
                events,
            )
            for probe in probes_of(module)
        ),
        key=lambda probe: not probe.hostile,
    )
)


def probes_for(rule: str) -> list[Probe]:
    """Return the probes of a rule, by its id."""
    return [probe for probe in PROBES if rule in probe.rules]


def expected_rules(strict: Set[str] = frozenset(), release: Release = LATEST) -> list[str]:
    """Return the ids of the rules that a cluster should hold, in the order of evaluation.

    Args:
        strict: ids of the strict rules among them.
        release: whose rules are expected.
    """
    return [
        rule.id
        for rule in RULES
        if (not rule.strict or rule.id in strict) and rule.since.includes(release)
    ]
