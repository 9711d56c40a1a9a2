"""Is the in-tree NodeRestriction plugin enabled as well?"""

from collections.abc import AsyncIterator
from http import HTTPStatus

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, passed, unknown, warned
from noderestrict.doctor.probe import is_from_webhook, probe
from noderestrict.doctor.restore import EDIT_API_SERVER
from noderestrict.doctor.workloads import api_servers, elements, values

_PLUGIN = "NodeRestriction"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each API server that runs as a static pod, as with kubeadm."""
    servers = await api_servers(cluster)
    if not servers:
        yield await _by_refusal(cluster)
    for name, command in servers.items():
        enabled = elements(values(command, "--enable-admission-plugins"))
        disabled = elements(values(command, "--disable-admission-plugins"))
        if _PLUGIN in enabled and _PLUGIN not in disabled:
            yield warned(
                f"{name}: {_PLUGIN} is enabled as well: either can deny a request",
                "keep both, or take it out of the API server's --enable-admission-plugins once the "
                "webhook enforces its rules",
                EDIT_API_SERVER,
            )
        else:
            yield passed(f"{name}: {_PLUGIN} is disabled")


async def _by_refusal(cluster: Cluster) -> Finding:
    """Return what the refusal of a bad request shows: the plugin runs before webhooks."""
    refusal = await probe(cluster)
    if refusal is not None and is_from_webhook(refusal) and refusal.code == HTTPStatus.FORBIDDEN:
        return passed(f"{_PLUGIN} is disabled: the webhook denied what the plugin would have")
    return unknown(
        "the API server's flags are not visible from here, and no denial shows what they are",
        f"check whether they enable {_PLUGIN}",
        f"ps -o args= -C kube-apiserver | grep {_PLUGIN}",
    )


CHECK = Check("in-tree plugin", f"Is the in-tree {_PLUGIN} plugin disabled?", check)
