"""``noderestrict replay --policies``: judge by policies, and compare with the rules."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from noderestrict.agents.agents import RULE_PREFIX, Agents
from noderestrict.cli._errors import UsageError
from noderestrict.policy.releases import RULES_ANNOTATION
from noderestrict.policy.settings import Settings
from noderestrict.policy.text import printable
from noderestrict.render.policy_modes import DENY

if TYPE_CHECKING:
    from noderestrict.replay.policies.compare import PolicyJudge
    from noderestrict.replay.policies.documents import PolicySet


#: Stands for the policies that render writes with the same flags.
RENDERED = "rendered"


def policy_judge(
    given: Sequence[str], settings: Settings, agents: Agents, prog: str
) -> "PolicyJudge":
    """Return what judges by policies, and say what a reader of its verdicts must know.

    Args:
        given: files and folders with the policies, or RENDERED alone.
        settings: of the rules that they are compared with.
        agents: whose policies they are compared with, too.
        prog: program and command, which start messages.

    Raises:
        UsageError: a policy cannot be read, checked or compiled.
    """
    from noderestrict.replay.policies.cel import MissingLibraryError
    from noderestrict.replay.policies.compare import PolicyJudge
    from noderestrict.replay.policies.documents import PolicyError, convert, read
    from noderestrict.replay.policies.evaluate import Policies

    if RENDERED in given and len(given) > 1:
        raise UsageError(f"--policies: {RENDERED} stands alone; ./{RENDERED} is a file")
    try:
        found = convert(_rendered(settings, agents)) if RENDERED in given else read(given)
        policies = Policies(found)
    except (PolicyError, MissingLibraryError) as error:
        raise UsageError(f"--policies: {error}") from None
    judge = PolicyJudge(policies)
    notes = [f"policy {name} has no binding, so it does nothing" for name in policies.unbound]
    if not judge.covered:
        notes.append("they cover no rule of noderestrict; a verdict is compared where rules allow")
    for release, names in _releases(found).items():
        if release != str(settings.release):
            notes.append(
                f"{names} of the rules of {release} are compared with those of {settings.release}; "
                f"--rules {release} compares with the same"
            )
    for note in notes:
        print(printable(f"{prog}: --policies: {note}"), file=sys.stderr)
    return judge


def _rendered(settings: Settings, agents: Agents) -> list[Any]:
    from noderestrict.render.policies import Options, policies

    # Whatever the mode of an agent is, what its policy refuses is of interest.
    modes = {f"{RULE_PREFIX}{agent.name}": DENY for agent in agents.all}
    return policies(Options(settings, rule_modes=modes, agents=agents.all))


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
