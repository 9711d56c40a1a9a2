"""Do kubelets' credentials make them nodes?"""

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from noderestrict.cluster.access import Access, Content
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.errors import ClusterError, ConnectionFailedError
from noderestrict.cluster.kubeconfig import File, read_kubeconfigs
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed, unknown
from noderestrict.policy.hostile import refused_as
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP, node_name
from noderestrict.verify.identity import own_identity

_ISSUE = (
    f"issue it with O={NODES_GROUP} and CN={NODE_USER_PREFIX}NAME",
    "sudo kubeadm init phase kubeconfig kubelet --node-name NAME",
)


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each kubeconfig that was given."""
    for file in cluster.options.node_kubeconfigs:
        try:
            yield await _judged(file)
        except ConnectionFailedError as error:
            yield failed(
                str(error),
                "pass the kubeconfig that the kubelet uses",
                "noderestrict doctor --node-kubeconfig /etc/kubernetes/kubelet.conf",
            )


async def _judged(file: Path) -> Finding:
    """Return whether the credential in a kubeconfig is a node's.

    Raises:
        ConnectionFailedError: the file, or one that it names, is unusable.
    """
    access = await asyncio.to_thread(_access, file)
    if access.user.certificate is not None:
        return await asyncio.to_thread(_of_certificate, file, access.user.certificate)
    # What a token says, only the API server knows.
    return await _of_api_server(file, access)


def _access(file: Path) -> Access:
    origin = f"--node-kubeconfig {file}"
    access = read_kubeconfigs([File(file, origin)], None)
    if access is None:
        raise ConnectionFailedError(f"{origin}: the file is empty")
    return access


def _of_certificate(file: Path, content: Content) -> Finding:
    with refused_as(ConnectionFailedError, str(content)):
        subject = x509.load_pem_x509_certificate(content.read()).subject
        names = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        found = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        groups = [str(one.value) for one in found]
    # The last one wins, as in the API server.
    name = names[-1] if names else ""
    if node_name(name, groups):
        return passed(f"{file}: {name} in {NODES_GROUP}")
    return failed(
        f"{file}: CN={name}, O={','.join(groups)} is not a node: no rule applies to it", *_ISSUE
    )


async def _of_api_server(file: Path, access: Access) -> Finding:
    again = shlex.join(["kubectl", f"--kubeconfig={file}", "auth", "whoami"])
    try:
        connection = await Connection.to(access)
        try:
            who = await own_identity(connection)
        finally:
            await connection.close()
    except ConnectionFailedError:
        raise
    except ClusterError as error:
        return unknown(f"{file}: the API server does not say who it is: {error}", "ask it", again)
    if who.node:
        return passed(f"{file}: {NODE_USER_PREFIX}{who.node} in {NODES_GROUP}")
    if not who.user:
        return unknown(f"{file}: the API server does not say who it is", "upgrade it", again)
    return failed(f"{file}: {who.user} is not a node: no rule applies to it", *_ISSUE)


CHECK = Check("node credentials", "Do kubelets' credentials make them nodes?", check)
