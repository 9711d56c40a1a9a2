"""Is the registration the one that the running servers expect?"""

import base64
from collections.abc import AsyncIterator
from typing import Any

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.differences import differences
from noderestrict.doctor.findings import Finding, failed, passed, unknown
from noderestrict.doctor.restore import restore
from noderestrict.doctor.workloads import SERVERS, Workload, values, workloads
from noderestrict.pki.check import KeyPairError
from noderestrict.render.registration import Registration, parse_registration
from noderestrict.render.workload import NAMESPACE, TLS_SECRET

_FLAG = "--expected-registration"
_SHOWN = 10


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield where the registration differs from the servers' expectation, if they have one."""
    expected = None
    for workload in await workloads(cluster, NAMESPACE, SERVERS):
        expected = _expected_by(workload) or expected
    if expected is None or expected.name != cluster.options.configuration:
        return
    installed = await cluster.registration()
    if installed is None:
        # Another check reports this.
        return
    rendered = expected.value(cluster.options.extra)
    try:
        found = differences(
            installed,
            rendered,
            await _certificate_authority(cluster),
            conditions=await cluster.minor_before_match_conditions() is None,
        )
    except KeyPairError as error:
        yield unknown(
            f"ca.crt of Secret {TLS_SECRET}: {error}", "create it again", await restore(cluster)
        )
        return
    for text in found[:_SHOWN]:
        yield failed(
            f"{text}: the servers expect otherwise",
            "install the rendered one again",
            await restore(cluster),
        )
    if not found:
        yield passed("it is what the servers expect")


def _expected_by(workload: Workload) -> Registration | None:
    """Return what a workload's servers expect; the last flag wins."""
    given = [value for command in workload.commands() for value in values(command, _FLAG)]
    try:
        return parse_registration(given[-1]) if given else None
    except ValueError:
        # A server with this flag does not start.
        return None


async def _certificate_authority(cluster: Cluster) -> bytes | None:
    """Return the CAs that a CA bundle may contain, None if they are unknown."""
    secrets: list[Any] = await cluster.items(f"/api/v1/namespaces/{NAMESPACE}/secrets")
    held = [one.get("data") or {} for one in secrets if one["metadata"]["name"] == TLS_SECRET]
    bundle = held[0].get("ca.crt") if held else None
    return base64.b64decode(bundle) if bundle else None


CHECK = Check("registration", "Is the registration the one that the servers expect?", check)
