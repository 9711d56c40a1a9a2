"""Do kubelets' client certificates make them nodes?"""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.findings import Finding, failed, passed
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each kubeconfig that was given."""
    for file in cluster.options.node_kubeconfigs:
        yield await asyncio.to_thread(check_node_kubeconfig, file)


def check_node_kubeconfig(file: Path) -> Finding:
    """Return whether the client certificate in a kubeconfig is a node's."""
    try:
        subject = _certificate(file).subject
    except BaseException as error:
        if not is_failure(error):
            raise
        return failed(
            f"{file}: cannot read the client certificate: {brief(error)}",
            "pass a kubeconfig with a client certificate",
            "noderestrict doctor --node-kubeconfig /etc/kubernetes/kubelet.conf",
        )
    names = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    # The last one wins, as in the API server.
    name = names[-1] if names else ""
    if NODES_GROUP in groups and name.removeprefix(NODE_USER_PREFIX) not in ("", name):
        return passed(f"{file}: {name} in {NODES_GROUP}")
    return failed(
        f"{file}: CN={name}, O={','.join(groups)} is not a node: no rule applies to it",
        f"issue it with O={NODES_GROUP} and CN={NODE_USER_PREFIX}NAME",
        "sudo kubeadm init phase kubeconfig kubelet --node-name NAME",
    )


def _certificate(file: Path) -> x509.Certificate:
    user = _current_user(yaml.safe_load(file.read_text()))
    data = user.get("client-certificate-data")
    if data:
        return x509.load_pem_x509_certificate(base64.b64decode(data))
    return x509.load_pem_x509_certificate((file.parent / user["client-certificate"]).read_bytes())


def _current_user(config: Any) -> Any:
    """Return the user of the current context, or else the first one."""
    current = next(
        (
            one["context"]["user"]
            for one in config.get("contexts") or ()
            if one["name"] == config.get("current-context")
        ),
        None,
    )
    users = config["users"]
    return next((one["user"] for one in users if one["name"] == current), users[0]["user"])


CHECK = Check("node credentials", "Do kubelets' client certificates make them nodes?", check)
