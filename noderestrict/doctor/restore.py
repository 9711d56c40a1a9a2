"""What to type to install the rendered objects again."""

import shlex
from typing import Any

from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.workloads import SERVERS, values, workloads
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import OLDEST_MINOR
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.workload import CA_SECRET, NAMESPACE, TLS_SECRET

#: What ``doctor`` is run with to see what another user cannot.
AS_ADMINISTRATOR = "noderestrict doctor --kubeconfig /etc/kubernetes/admin.conf"
#: What shows whether the API server answers, and if not, why.
REACHABLE = "kubectl get --raw /readyz?verbose"
_SECRETS = f"--secret {NAMESPACE}/{TLS_SECRET} --ca-secret {NAMESPACE}/{CA_SECRET}"
_BOOTSTRAP = "noderestrict certs bootstrap"
#: Of cert-manager.
_CERTIFICATE = f"/apis/cert-manager.io/v1/namespaces/{NAMESPACE}/certificates/{TLS_SECRET}"


def render(extra: Extra, *flags: str) -> list[str]:
    """Return the command that renders the manifests with a policy; none if they are as they came.

    Args:
        extra: policy beyond the in-tree plugin.
        flags: of ``render`` besides those of the policy.
    """
    words = [*policy_flags(extra), *flags]
    return [shlex.join(["noderestrict", "render", "manifests", *words])] if words else []


async def restore(cluster: Cluster, *flags: str, overlay: str = "") -> str:
    """Return the commands that install the rendered objects and the registration again.

    Args:
        cluster: where the kind of installation is visible.
        flags: of ``render`` besides those of the policy.
        overlay: to install; the one that is installed if empty.

    Raises:
        ClusterError: the installation could not be read.
    """
    overlay = overlay or await _overlay(cluster)
    minor = await cluster.minor_before_match_conditions()
    if minor is not None:
        flags = (*flags, f"--kubernetes-version=1.{max(minor, OLDEST_MINOR)}")
    return "\n".join((*render(cluster.options.extra, *flags), *_install(overlay)))


def _install(overlay: str) -> list[str]:
    folder = f"manifests/overlays/{overlay or 'control-plane'}"
    registration = f"{folder}/enforce/registration.yaml"
    match overlay:
        case "":
            keys = "--directory tls --ca-directory ca"
            return [f"{_BOOTSTRAP} {keys} --registration {registration}"]
        case "audit":
            # Nobody keeps a CA where nodes may label themselves trusted.
            keys = f"--secret {NAMESPACE}/{TLS_SECRET}"
        case _:
            keys = _SECRETS
    return [
        f"kubectl apply -k {folder}/install",
        f"{_BOOTSTRAP} {keys}",
        f"{_BOOTSTRAP} {keys} --registration {registration}",
    ]


async def _overlay(cluster: Cluster) -> str:
    """Return the overlay that is installed, "" if the servers do not run as pods."""
    servers = await workloads(cluster, NAMESPACE, SERVERS)
    if not servers:
        url = any((one.get("clientConfig") or {}).get("url") for one in await _webhooks(cluster))
        return "" if url else "self-signed"
    if any(one.kind == "daemonset" for one in servers):
        return "control-plane"
    commands = [command for one in servers for command in one.commands()]
    if any(values(command, "--mode")[-1:] == ["audit"] for command in commands):
        return "audit"
    issued = await cluster.find(_CERTIFICATE) is not None
    return "cert-manager" if issued else "self-signed"


async def _webhooks(cluster: Cluster) -> list[Any]:
    return (await cluster.registration() or {}).get("webhooks") or []
