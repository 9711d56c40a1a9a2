"""Does each policy hold an account that exists, and as which a DaemonSet runs?

A policy for another account is never asked about anything, and nobody notices.
"""

from collections.abc import AsyncIterator, Iterable

from noderestrict.agents.file import Agent
from noderestrict.api.resources import qualified
from noderestrict.doctor.agent_policies import accounts_of
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.restore import correcting
from noderestrict.doctor.trust import some

_CORRECT = "name the account of the DaemonSet's pods in the policy"
_Account = tuple[str, str]


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield which policies hold nobody, and who else is held by them."""
    running = await _runners(cluster)
    for agent in cluster.options.agents:
        accounts = accounts_of(agent)
        if not accounts:
            yield passed(f"agent {agent.name!r}: its users have certificates, and no account")
            continue
        used = [one for one in accounts if running.get(one, _NOBODY).daemon_sets]
        correct = await correcting(cluster, agent)
        for account in accounts:
            if account not in used:
                exists = await _exists(cluster, account)
                yield _unused(agent, account, running, correct, exists=exists, others=bool(used))
        for account in used:
            sets, others = running[account].daemon_sets, running[account].others
            name = qualified(*account)
            yield passed(f"agent {agent.name!r}: DaemonSet {some(sorted(sets))} runs as {name}")
            if others:
                yield warned(
                    f"agent {agent.name!r}: pods of no DaemonSet run as {name}, and are held to "
                    f"their node as well: {some(sorted(others))}",
                    "give them an account of their own",
                    f"kubectl -n {account[0]} create serviceaccount NAME",
                )


class _Runners:
    """What runs as an account."""

    def __init__(self) -> None:
        self.daemon_sets: set[str] = set()
        self.others: set[str] = set()


_NOBODY = _Runners()


async def _runners(cluster: Cluster) -> dict[_Account, _Runners]:
    """Return what runs as each account that anything runs as."""
    found: dict[_Account, _Runners] = {}

    def add(namespace: str, spec: dict[str, str]) -> _Runners:
        account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        return found.setdefault((namespace, account), _Runners())

    for one in await cluster.items("/apis/apps/v1/daemonsets"):
        metadata = one["metadata"]
        name = qualified(metadata["namespace"], metadata["name"])
        add(metadata["namespace"], one["spec"]["template"]["spec"]).daemon_sets.add(name)
    for pod in await cluster.items("/api/v1/pods"):
        metadata = pod["metadata"]
        runners = add(metadata["namespace"], pod.get("spec") or {})
        owners = [one for one in metadata.get("ownerReferences") or () if one.get("controller")]
        name = qualified(metadata["namespace"], metadata["name"])
        if owners and owners[0].get("kind") == "DaemonSet":
            # A DaemonSet whose account has changed still has pods of the former one.
            runners.daemon_sets.add(qualified(metadata["namespace"], owners[0]["name"]))
        else:
            runners.others.add(name)
    return found


async def _exists(cluster: Cluster, account: _Account) -> bool:
    namespace, name = account
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
    return await cluster.find(path) is not None


def _unused(
    agent: Agent,
    account: _Account,
    running: dict[_Account, _Runners],
    correct: str,
    *,
    exists: bool,
    others: bool,
) -> Finding:
    name = qualified(*account)
    what = f"no DaemonSet runs as {name}" if exists else f"service account {name} does not exist"
    if others:
        text = f"agent {agent.name!r}: {what}; another account of the policy is in use"
        return warned(text, "take it out of the policy", correct)
    return failed(
        f"agent {agent.name!r}: {what}, so the policy holds nobody{_instead(account, running)}",
        _CORRECT,
        correct,
    )


def _instead(account: _Account, running: dict[_Account, _Runners]) -> str:
    """Return which accounts DaemonSets of the namespace run as."""
    names: Iterable[str] = sorted(
        f"{some(sorted(runners.daemon_sets))} as {qualified(*other)}"
        for other, runners in running.items()
        if other[0] == account[0] and runners.daemon_sets
    )
    return f"; DaemonSets there run: {some(list(names))}" if names else ""


CHECK = Check("agent accounts", "Does each policy hold an account that DaemonSets use?", check)
