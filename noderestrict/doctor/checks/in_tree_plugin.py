"""Is the in-tree NodeRestriction plugin enabled as well?"""

from collections.abc import AsyncIterator

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, passed, warned
from noderestrict.doctor.workloads import api_servers, elements, values

_PLUGIN = "NodeRestriction"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each API server that runs as a static pod, as with kubeadm."""
    servers = await api_servers(cluster)
    if not servers:
        yield warned(
            "the API server's flags are not visible from here",
            f"check whether they enable {_PLUGIN}",
        )
    for name, command in servers.items():
        enabled = elements(values(command, "--enable-admission-plugins"))
        disabled = elements(values(command, "--disable-admission-plugins"))
        if _PLUGIN in enabled and _PLUGIN not in disabled:
            yield warned(
                f"{name}: {_PLUGIN} is enabled as well: either can deny a request",
                "disable it once the webhook enforces its rules, or keep both",
            )
        else:
            yield passed(f"{name}: {_PLUGIN} is disabled")


CHECK = Check("in-tree plugin", f"Is the in-tree {_PLUGIN} plugin disabled?", check)
