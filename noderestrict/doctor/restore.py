"""What to type to install the rendered objects again."""

import shlex
from typing import Any

from noderestrict.doctor.cluster import Cluster
from noderestrict.doctor.workloads import SERVERS, values, workloads
from noderestrict.policy.extra import Extra
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.workload import CA_SECRET, NAMESPACE, TLS_SECRET

#: What ``doctor`` is run with to see what another user cannot.
AS_ADMINISTRATOR = "noderestrict doctor --kubeconfig /etc/kubernetes/admin.conf"
#: What shows whether the API server answers, and if not, why.
REACHABLE = "kubectl get --raw /readyz?verbose"
_SECRETS = f"--secret {NAMESPACE}/{TLS_SECRET} --ca-secret {NAMESPACE}/{CA_SECRET}"
_HOST_NAMES = "--dns-names 127.0.0.1,localhost"
_INJECTED = "cert-manager.io/inject-ca-from"


def render(extra: Extra, *flags: str) -> list[str]:
    """Return the command that renders the manifests with a policy; none if they are as they came.

    Args:
        extra: policy beyond the in-tree plugin.
        flags: of ``render`` besides those of the policy.
    """
    words = [*policy_flags(extra), *flags]
    return [shlex.join(["noderestrict", "render", "manifests", *words])] if words else []


async def restore(cluster: Cluster, *flags: str) -> str:
    """Return the commands that install the rendered objects and the registration again.

    Args:
        cluster: where the kind of installation is visible.
        flags: of ``render`` besides those of the policy.

    Raises:
        ClusterError: the installation could not be read.
    """
    overlay = await _overlay(cluster)
    return "\n".join((*render(cluster.options.extra, *flags), *_install(overlay)))


def _install(overlay: str) -> list[str]:
    folder = f"manifests/overlays/{overlay}"
    apply, bootstrap = f"kubectl apply -k {folder}", "noderestrict certs bootstrap"
    match overlay:
        case "":
            file = "manifests/overlays/control-plane/webhook.yaml"
            where = "--directory tls --ca-directory ca"
            return [f"{bootstrap} {where} {_HOST_NAMES} --registration {file}"]
        case "cert-manager":
            # An apply keeps what others have added.
            return [apply, f"kubectl replace -f {folder}/webhook.yaml"]
        case "control-plane":
            names = f" {_HOST_NAMES}"
        case _:
            names = ""
    # Nobody keeps a CA where nodes may label themselves trusted.
    secrets = f"--secret {NAMESPACE}/{TLS_SECRET}" if overlay == "audit" else _SECRETS
    piped = f"kubectl kustomize {folder} | {bootstrap} {secrets}{names} --registration -"
    return [apply, piped]


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
    registration = await cluster.registration() or {}
    annotations = (registration.get("metadata") or {}).get("annotations") or {}
    return "cert-manager" if _INJECTED in annotations else "self-signed"


async def _webhooks(cluster: Cluster) -> list[Any]:
    return (await cluster.registration() or {}).get("webhooks") or []
