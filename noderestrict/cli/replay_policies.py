"""``noderestrict replay --policies``: judge by policies, and compare with the rules."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from noderestrict.cli._errors import UsageError
from noderestrict.policy.releases import RULES_ANNOTATION, Release
from noderestrict.policy.text import printable

if TYPE_CHECKING:
    from noderestrict.replay.policies.compare import PolicyJudge
    from noderestrict.replay.policies.documents import PolicySet


def policy_judge(paths: Sequence[str], rules: Release) -> "PolicyJudge":
    """Return what judges by policies, and say what a reader of its verdicts must know.

    Args:
        paths: files and folders with the policies.
        rules: release whose rules they are compared with.

    Raises:
        UsageError: a policy cannot be read, checked or compiled.
    """
    from noderestrict.replay.policies.cel import MissingLibraryError
    from noderestrict.replay.policies.compare import PolicyJudge
    from noderestrict.replay.policies.documents import PolicyError, read
    from noderestrict.replay.policies.evaluate import Policies

    try:
        found = read(paths)
        policies = Policies(found)
    except (PolicyError, MissingLibraryError) as error:
        raise UsageError(f"--policies: {error}") from None
    judge = PolicyJudge(policies)
    notes = [f"policy {name} has no binding, so it does nothing" for name in policies.unbound]
    if not judge.covered:
        notes.append("they cover no rule of noderestrict; a verdict is compared where rules allow")
    for release, names in _releases(found).items():
        if release != str(rules):
            notes.append(
                f"{names} of the rules of {release} are compared with those of {rules}; "
                f"--rules {release} compares with the same"
            )
    for note in notes:
        print(printable(f"noderestrict replay: --policies: {note}"), file=sys.stderr)
    return judge


def _releases(found: "PolicySet") -> dict[str, str]:
    """Return how many policies hold the rules of which release, in words, by release."""
    counts: dict[str, int] = {}
    for policy, _ in found.policies.values():
        release = (policy.metadata.annotations or {}).get(RULES_ANNOTATION)
        if release:
            counts[release] = counts.get(release, 0) + 1
    return {
        release: "1 policy" if count == 1 else f"{count} policies"
        for release, count in counts.items()
    }
