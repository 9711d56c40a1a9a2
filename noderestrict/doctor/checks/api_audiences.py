"""Do the servers have the API server's audiences?"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from noderestrict.doctor.audiences import known_audiences
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.restore import restore
from noderestrict.doctor.workloads import SERVERS, authorizers, elements, setting, words, workloads
from noderestrict.rbac.subjects import ACCOUNT_PREFIX

_FLAG = "--api-audiences"


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each workload that serves, or for each static pod."""
    user = cluster.options.server_user
    configured = await _configured(cluster, user)
    if not configured:
        yield unknown(
            f"no workload or static pod runs as {user}, so whether the server has them is not seen",
            f"compare the server's {_FLAG}, if any, with the API server's",
            "ps -o args= -C kube-apiserver",
        )
        return
    known = await known_audiences(cluster)
    for workload, audiences in configured:
        if not audiences:
            yield passed(f"{workload} learns them from its token")
        elif not known:
            yield await _against_issuer(cluster, workload, audiences)
        for source, right in known.items() if audiences else ():
            if set(audiences) == set(right):
                yield passed(f"{workload} has the audiences of {source}: {','.join(audiences)}")
            else:
                yield failed(
                    f"{workload} has {_FLAG}={','.join(audiences)}, but {source} has "
                    f"{','.join(right)}: nodes are denied default tokens, or granted tokens that "
                    "no pod requests",
                    "render with those, or without the flag: the server learns them",
                    await _rendering(cluster, f"{_FLAG}={','.join(right)}"),
                )


async def _rendering(cluster: Cluster, flag: str) -> str:
    """Return the command that renders the servers with another flag."""
    if cluster.options.server_user.startswith(ACCOUNT_PREFIX):
        return await restore(cluster, flag)
    return f"noderestrict render authorizer {flag}"


async def _configured(cluster: Cluster, user: str) -> list[tuple[str, Sequence[str]]]:
    """Return the audiences that each workload of a service account is configured with.

    Static pods have no service account, and so run as any other user.
    """
    _, _, account = user.partition(ACCOUNT_PREFIX)
    namespace, _, name = account.partition(":")
    if not name:
        return [
            (f"pod kube-system/{pod['metadata']['name']}", _audiences(container))
            for pod in await authorizers(cluster)
            for container in pod["spec"]["containers"]
        ]
    return [
        (f"{workload.kind} {namespace}/{workload.name}", _audiences(container))
        for workload in await workloads(cluster, namespace, SERVERS)
        if workload.pod_spec.get("serviceAccountName") == name
        for container in workload.pod_spec["containers"]
        if "serve" in words(container)
    ]


def _audiences(container: Mapping[str, Any]) -> Sequence[str]:
    """Return the audiences of a container: of the last flag, or else of the environment."""
    return elements(setting(container, _FLAG.removeprefix("--")))


async def _against_issuer(cluster: Cluster, workload: str, audiences: Sequence[str]) -> Finding:
    text = f"{workload} has {_FLAG}={','.join(audiences)}, which cannot be verified from here"
    remedy = (f"compare it with the API server's {_FLAG}", "ps -o args= -C kube-apiserver")
    discovery = await cluster.find("/.well-known/openid-configuration")
    if discovery is None:
        return unknown(text, *remedy)
    issuer = str(discovery.get("issuer"))
    if issuer in audiences:
        return passed(f"{text}; the issuer is among them")
    return warned(f"{text}; the issuer {issuer} is not among them", *remedy)


CHECK = Check("api audiences", "Do the servers have the API server's audiences?", check)
