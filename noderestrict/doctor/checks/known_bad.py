"""Is a request denied that must be?"""

from collections.abc import AsyncIterator

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.probe import FORBIDDEN, is_from_webhook, probe


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield whether, and by what, the request was denied."""
    refusal = await probe(cluster)
    if refusal is None:
        yield failed(
            "a node can write another node's Lease",
            "register the webhook and enforce its rules: audit mode denies nothing",
        )
    elif is_from_webhook(refusal):
        if refusal.code == FORBIDDEN:
            yield passed("a node cannot write another node's Lease")
        else:
            yield failed(
                f"the webhook did not answer: {refusal}", "check that the server is running"
            )
    elif refusal.code != FORBIDDEN:
        raise refusal
    elif "impersonate" in str(refusal):
        yield warned(
            "you are not allowed to impersonate a node",
            "grant yourself that, or try with a node's kubeconfig",
        )
    elif "cannot create resource" in str(refusal):
        yield warned(
            f"an authorizer denied the request first: {refusal}",
            "nothing to do: the request was denied",
        )
    else:
        yield warned(
            f"another admission plugin denied the request first: {refusal}",
            "if this is the in-tree NodeRestriction plugin, disable it or keep both",
        )


CHECK = Check("known-bad request", "Is a node denied another node's Lease?", check)
