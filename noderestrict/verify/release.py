"""Which release's rules a cluster has."""

from collections.abc import Iterable, Iterator

from noderestrict.policy.releases import LATEST_MINOR, OLDEST_MINOR, Release, Since
from noderestrict.verify.results import (
    ADMISSION,
    API_SERVER,
    AUTHORIZERS,
    PASSED,
    REFUSED,
    RuleResult,
)

# What is refused earlier says nothing about the rules of admission.
_EARLIER = (AUTHORIZERS, API_SERVER)
_Found = list[tuple[Since, str]]


def release_of(rules: Iterable[RuleResult]) -> str:
    """Return which release's rules a cluster has: the last one of which it lacks none.

    Only requests of which it is known what became of them count.
    """
    refused: _Found = []
    through: _Found = []
    for rule in rules:
        for attempt in rule.attempts if rule.half == ADMISSION else ():
            if attempt.hostile and attempt.outcome.state == PASSED:
                through.append((attempt.since, rule.rule))
            elif (
                attempt.hostile
                and attempt.outcome.state == REFUSED
                and attempt.outcome.by not in _EARLIER
            ):
                refused.append((attempt.since, rule.rule))
    if not refused and not through:
        return "unknown"
    known = [since for since, _ in (*refused, *through)]
    held = [release for release in _releases(known) if not _lacking(through, release)]
    if not held or not refused:
        count = len({rule for _, rule in through})
        return f"those of no release: {count} do not hold"
    if not through:
        return f"at least those of Kubernetes 1.{max(since.minor for since in known)}"
    release = max(held)
    more = [one for one in refused if not one[0].includes(release)]
    return f"those of Kubernetes {release}, without {_listed(through)}" + (
        f", but with {_listed(more)}" if more else ""
    )


def _releases(known: Iterable[Since]) -> Iterator[Release]:
    """Yield every release that differs from another one."""
    for minor in range(OLDEST_MINOR, LATEST_MINOR + 1):
        yield Release(minor)
    for since in known:
        for first in since.backports:
            yield first
            yield Release(first.minor, first.patch - 1)


def _lacking(through: _Found, release: Release) -> bool:
    return any(since.includes(release) for since, _ in through)


def _listed(found: _Found) -> str:
    return ", ".join(dict.fromkeys(f"{rule} ({since})" for since, rule in found))
