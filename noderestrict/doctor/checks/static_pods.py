"""Would a static pod that runs today be refused a mirror pod?

The plugins before 1.34 let mirror pods refer to drivers, ephemeral volumes and whatever else they
did not know, and kubelets before 1.34 make such mirror pods.
"""

from collections.abc import AsyncIterator

import msgspec

from noderestrict.api import corev1
from noderestrict.api.resources import RESOURCES, qualified
from noderestrict.cluster.objects import DECODE_ERRORS
from noderestrict.cluster.pages import pages
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, passed, warned
from noderestrict.policy.compare import listed
from noderestrict.policy.records import MIRROR_POD_ANNOTATION
from noderestrict.policy.references import references
from noderestrict.policy.rules.pods import mirror_references

_PAGE = 500
_pods = msgspec.json.Decoder(corev1.Pod)


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each mirror pod that refers to other objects."""
    refused = 0
    async for part in pages(cluster.connection, RESOURCES["pods"].list_path, _PAGE):
        for raw in part.items:
            try:
                pod = _pods.decode(raw)
            except (*DECODE_ERRORS, RecursionError):
                continue
            meta = pod.metadata
            if meta is None or MIRROR_POD_ANNOTATION not in (meta.annotations or {}):
                continue
            found = listed(map(str, references(pod.spec))) if pod.spec else ""
            if found:
                refused += 1
                node = (pod.spec.nodeName if pod.spec else None) or ""
                yield warned(
                    f"static pod {qualified(meta.namespace or '', meta.name or '')} of node "
                    f"{node} refers to {found}: its next mirror pod will be refused",
                    "take the references out of its manifest on the node, or report the rule only "
                    "until that is done",
                    f"noderestrict serve --rule-modes {mirror_references.id}=audit",
                )
    if not refused:
        yield passed("no static pod refers to other objects")


CHECK = Check("static pods", "Would a static pod that runs today be refused?", check)
