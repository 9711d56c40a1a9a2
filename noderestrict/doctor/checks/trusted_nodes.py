"""Do our pods run on trusted nodes only?"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.restore import restore
from noderestrict.doctor.trust import Trust, is_dedicated, is_guarded, read_trust, some
from noderestrict.render.workload import DEDICATED_NODES


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield, for each node selector of our pods, whether it selects trusted nodes."""
    trust = await read_trust(cluster)
    if trust.doubled:
        yield failed(
            f"{some(trust.doubled)}: they report the same API server address: one of them lies",
            "find out which one lies",
            "\n".join(f"kubectl get node {name} -o yaml" for name in trust.doubled),
        )
    again = await restore(cluster)
    by_selector: dict[str, tuple[Mapping[str, str], list[str]]] = {}
    for workload, selector in trust.selectors.items():
        key = ",".join(f"{label}={value}" for label, value in sorted(selector.items()))
        by_selector.setdefault(key, (selector, []))[1].append(workload)
    for text, (selector, workloads) in by_selector.items():
        yield _selected(trust, selector, text, some(workloads), again)


def _selected(
    trust: Trust, selector: Mapping[str, str], text: str, workloads: str, again: str
) -> Finding:
    if not selector:
        return failed(
            f"{workloads}: can run on any node, which can then read its Secrets",
            'apply the rendered manifests again; see "Upgrade" in docs/install.md',
            again,
        )
    matching = trust.matching(selector)
    if not matching:
        return failed(
            f"{workloads}: no node has {text}, so that the pods cannot be scheduled",
            'dedicate nodes; see "Trusted nodes" in docs/install.md',
            f"kubectl label node NODE {text.replace(',', ' ')}",
        )
    if is_guarded(selector):
        return _dedicated(trust, matching, text)
    return _control_plane(trust, matching, text)


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


def _control_plane(trust: Trust, matching: Sequence[str], text: str) -> Finding:
    if not trust.api_servers:
        return unknown(
            f"{text}: {some(matching)}: whether an API server runs there is unknown",
            "remove the label from every node that you do not trust, and dedicate nodes; see "
            '"Trusted nodes" in docs/install.md',
            f"kubectl label node NODE {DEDICATED_NODES}=trusted",
        )
    others = [name for name in matching if name not in trust.api_servers]
    if others:
        return failed(
            f"{some(others)}: has {text} but runs no API server: it may have labeled itself to "
            "read our pods' Secrets",
            'remove the label and replace the credentials; see "Upgrade" in docs/install.md',
            "\n".join(f"kubectl label node {name} {_removing(text)}" for name in others),
        )
    return passed(f"{text}: {some(matching)}")


def _removing(selector: str) -> str:
    """Return what kubectl calls the removal of the labels of a selector."""
    return " ".join(f"{one.partition('=')[0]}-" for one in selector.split(","))


CHECK = Check("trusted nodes", "Do our pods run on trusted nodes only?", check)
