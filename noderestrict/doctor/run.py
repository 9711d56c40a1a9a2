"""Run all checks in order."""

from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus

from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.doctor.check import Check
from noderestrict.doctor.checks import (
    agents_accounts,
    agents_identity,
    agents_modes,
    agents_policies,
    agents_reads,
    agents_registration,
    agents_rights,
    agents_start,
    agents_tokens,
    api_audiences,
    api_server,
    authorizer,
    certificate,
    client_verification,
    cold_start,
    credentials,
    endpoints,
    in_tree_plugin,
    manifests,
    node_credentials,
    old_manifests,
    policies,
    registration,
    replicas,
    rights,
    rules,
    server_version,
    static_pods,
    trusted_nodes,
)
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.findings import Finding, unknown
from noderestrict.doctor.restore import AS_ADMINISTRATOR, REACHABLE
from noderestrict.policy.hostile import brief, is_failure

_NO_RIGHTS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_AGAIN = "fix this, then run it again"

CHECKS = (
    api_server.CHECK,
    server_version.CHECK,
    registration.CHECK,
    manifests.CHECK,
    policies.CHECK,
    certificate.CHECK,
    endpoints.CHECK,
    cold_start.CHECK,
    replicas.CHECK,
    rules.CHECK,
    client_verification.CHECK,
    in_tree_plugin.CHECK,
    static_pods.CHECK,
    rights.CHECK,
    api_audiences.CHECK,
    trusted_nodes.CHECK,
    credentials.CHECK,
    old_manifests.CHECK,
    node_credentials.CHECK,
    authorizer.CHECK,
    agents_policies.CHECK,
)
#: Of the policies that --agents names, or else of those that the servers have.
AGENT_CHECKS = (
    agents_accounts.CHECK,
    agents_tokens.CHECK,
    agents_registration.CHECK,
    agents_start.CHECK,
    agents_reads.CHECK,
    agents_modes.CHECK,
    agents_rights.CHECK,
    agents_identity.CHECK,
)


async def examine(
    connection: Connection, options: Options, checks: Sequence[Check] | None = None
) -> AsyncIterator[tuple[Check, Finding]]:
    """Yield what each check finds; what one that fails to complete would find is unknown.

    Where the API server does not answer at all, nothing else is checked.

    Args:
        connection: to the API server, preferably as an administrator.
        options: what to examine.
        checks: in order; None for all that there are, those of agents where policies hold some.
    """
    if checks is None:
        checks = (*CHECKS, *AGENT_CHECKS) if options.agents else CHECKS
    cluster = Cluster(connection, options)
    for check in checks:
        try:
            async for finding in check.check(cluster):
                yield check, finding
        except BaseException as error:
            if not is_failure(error):
                raise
            yield check, _unknown(error)
            if check is api_server.CHECK:
                return


def _unknown(error: BaseException) -> Finding:
    """Return what keeps a check from being completed."""
    if not isinstance(error, ClusterError):
        return unknown(f"could not be checked: {brief(error)}", _AGAIN, "noderestrict doctor")
    text = f"could not be checked: {error}"
    if error.code in _NO_RIGHTS:
        return unknown(text, "run it as an administrator", AS_ADMINISTRATOR)
    if error.code:
        return unknown(text, _AGAIN, "noderestrict doctor")
    return unknown(text, "check the network, and the kubeconfig's server and CA", REACHABLE)
