"""Is a request denied that must be?"""

from collections.abc import AsyncIterator

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown
from noderestrict.doctor.probe import FORBIDDEN, is_from_webhook, probe
from noderestrict.doctor.restore import AS_ADMINISTRATOR, restore
from noderestrict.render.workload import NAMESPACE


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield whether, and by what, the request was denied."""
    refusal, mode = await probe(cluster), cluster.options.expected_mode
    if refusal is None and cluster.options.audited:
        yield passed(f"a node can write another node's Lease, as in mode {mode}")
    elif refusal is None:
        yield failed(
            "a node can write another node's Lease",
            "register the webhook and enforce its rules: audit mode denies nothing",
            await restore(cluster),
        )
    elif is_from_webhook(refusal):
        if refusal.code != FORBIDDEN:
            yield failed(
                f"the webhook did not answer: {refusal}",
                "check that the server is running",
                f"kubectl -n {NAMESPACE} logs --selector app.kubernetes.io/name=noderestrict",
            )
        elif cluster.options.audited:
            yield failed(
                f"a node cannot write another node's Lease, other than in mode {mode}",
                "run the servers in that mode",
                "kubectl apply -k manifests/overlays/audit",
            )
        else:
            yield passed("a node cannot write another node's Lease")
    elif refusal.code != FORBIDDEN:
        raise refusal
    elif "impersonate" in str(refusal):
        yield unknown(
            "you are not allowed to impersonate a node",
            "run it as an administrator",
            AS_ADMINISTRATOR,
        )
    elif "cannot create resource" in str(refusal):
        yield unknown(
            f"an authorizer denied the request first: {refusal}",
            "let nodes write Leases, as the Node authorizer does",
        )
    else:
        yield unknown(
            f"another admission plugin denied the request first: {refusal}",
            "if this is the in-tree NodeRestriction plugin, nodes are restricted, but whether the "
            "webhook would is not seen",
        )


CHECK = Check("known-bad request", "Is a node denied another node's Lease?", check)
