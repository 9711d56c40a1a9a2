"""Run all checks in order."""

from collections.abc import AsyncIterator, Sequence

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.doctor.check import Check
from noderestrict.doctor.checks import (
    api_audiences,
    authorizer,
    certificate,
    client_verification,
    cold_start,
    credentials,
    endpoints,
    expected_registration,
    in_tree_plugin,
    known_bad,
    node_credentials,
    old_manifests,
    registration,
    rights,
    server_version,
    trusted_nodes,
)
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.findings import Finding, warned
from noderestrict.policy.hostile import brief, is_failure

CHECKS = (
    server_version.CHECK,
    registration.CHECK,
    expected_registration.CHECK,
    certificate.CHECK,
    endpoints.CHECK,
    cold_start.CHECK,
    known_bad.CHECK,
    client_verification.CHECK,
    in_tree_plugin.CHECK,
    rights.CHECK,
    api_audiences.CHECK,
    trusted_nodes.CHECK,
    credentials.CHECK,
    old_manifests.CHECK,
    node_credentials.CHECK,
    authorizer.CHECK,
)


async def examine(
    connection: Connection, options: Options, checks: Sequence[Check] = CHECKS
) -> AsyncIterator[tuple[Check, Finding]]:
    """Yield what each check finds; one that fails to complete is a warning.

    Args:
        connection: to the API server, preferably as an administrator.
        options: what to examine.
        checks: in order.
    """
    cluster = Cluster(connection, options)
    for check in checks:
        try:
            async for finding in check.check(cluster):
                yield check, finding
        except BaseException as error:
            if not is_failure(error):
                raise
            problem = str(error) if isinstance(error, ClusterError) else brief(error)
            yield check, warned(f"could not be checked: {problem}", "fix this, then run it again")
