"""Do our pods run on trusted nodes only?"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.placement import Placement, is_dedicated
from noderestrict.doctor.restore import restore
from noderestrict.doctor.trust import Trust, read_trust, some
from noderestrict.render.workload import DEDICATED_NODES


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield, for each choice of nodes for our pods, whether it selects only trusted nodes."""
    trust = await read_trust(cluster)
    if trust.doubled:
        yield failed(
            f"{some(trust.doubled)}: they report the same API server address: one of them lies",
            "find out which one lies",
            "\n".join(f"kubectl get node {name} -o yaml" for name in trust.doubled),
        )
    again = await restore(cluster)
    workloads: dict[str, list[str]] = {}
    for workload, placement in trust.placements.items():
        workloads.setdefault(str(placement), []).append(workload)
    for names in workloads.values():
        yield _placed(trust, trust.placements[names[0]], some(names), again)


def _placed(trust: Trust, placement: Placement, workloads: str, again: str) -> Finding:
    if placement.terms is None:
        return failed(
            f"{workloads}: can run on any node, which can then read its Secrets",
            'apply the rendered manifests again; see "Upgrade" in docs/install.md',
            again,
        )
    matching = placement.matching(trust.nodes)
    if not matching:
        labels = " ".join(f"{key}={value}" for key, value in placement.labels())
        return failed(
            f"{workloads}: no node has {placement}, so that the pods cannot be scheduled",
            'dedicate nodes; see "Trusted nodes" in docs/install.md',
            f"kubectl label node NODE {labels}" if labels else again,
        )
    if placement.is_guarded():
        return _dedicated(trust, matching, str(placement))
    return _control_plane(trust, matching, placement)


def _dedicated(trust: Trust, matching: Sequence[str], text: str) -> Finding:
    untainted = [name for name in matching if not _tainted(trust.nodes[name])]
    if untainted:
        return warned(
            f"{some(untainted)}: has {text} but no taint {DEDICATED_NODES}: other pods can run "
            "there",
            "keep other pods away",
            "\n".join(
                f"kubectl taint node {name} {DEDICATED_NODES}=trusted:NoSchedule"
                for name in untainted
            ),
        )
    return passed(f"{text}: {some(matching)}")


def _tainted(node: Any) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    return any(
        is_dedicated(taint["key"]) and taint["effect"] in ("NoSchedule", "NoExecute")
        for taint in taints
    )


def _control_plane(trust: Trust, matching: Sequence[str], placement: Placement) -> Finding:
    if not trust.api_servers:
        return unknown(
            f"{placement}: {some(matching)}: whether an API server runs there is unknown",
            "remove the label from every node that you do not trust, and dedicate nodes; see "
            '"Trusted nodes" in docs/install.md',
            f"kubectl label node NODE {DEDICATED_NODES}=trusted",
        )
    others = [name for name in matching if name not in trust.api_servers]
    if others:
        unlabel = " ".join(f"{key}-" for key in placement.selecting())
        return failed(
            f"{some(others)}: has {placement} but runs no API server: it may have labeled itself "
            "to read our pods' Secrets",
            'remove the label and replace the credentials; see "Upgrade" in docs/install.md',
            "\n".join(f"kubectl label node {name} {unlabel}" for name in others),
        )
    return passed(f"{placement}: {some(matching)}")


CHECK = Check("trusted nodes", "Do our pods run on trusted nodes only?", check)
