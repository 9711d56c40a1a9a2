"""Does the API server call webhooks reliably, and are its feature gates known?"""

from collections.abc import AsyncIterator

from noderestrict.cluster.server_info import is_open_to_cve_2021_25735, server_version
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.policy.releases import LATEST_MINOR, OLDEST_MINOR


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield one finding on the version."""
    minor, patch = await server_version(cluster.connection)
    version = f"1.{minor}.{patch}"
    if is_open_to_cve_2021_25735(minor, patch):
        yield failed(
            f"{version} is vulnerable to CVE-2021-25735: Node updates can bypass webhooks",
            "upgrade the API server",
            "kubeadm upgrade plan",
        )
    elif not OLDEST_MINOR <= minor <= LATEST_MINOR:
        yield warned(
            f"{version} is outside 1.{OLDEST_MINOR} to 1.{LATEST_MINOR}: the defaults of its "
            "feature gates are unknown",
            "set --feature-gates to match the API server",
            "kubectl get --raw /metrics | grep kubernetes_feature_enabled",
        )
    else:
        yield passed(version)


CHECK = Check("server version", "Does the API server call webhooks reliably?", check)
