"""What to type to install the rendered objects again."""

import shlex
from collections.abc import Sequence

from noderestrict.agents.file import Agent
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.overlay import installed_overlay
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import OLDEST_MINOR
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.workload import CA_SECRET, NAMESPACE, TLS_SECRET

#: What ``doctor`` is run with to see what another user cannot.
AS_ADMINISTRATOR = "noderestrict doctor --kubeconfig /etc/kubernetes/admin.conf"
#: What shows whether the API server answers, and if not, why.
REACHABLE = "kubectl get --raw /readyz?verbose"
#: Where kubeadm keeps the flags of an API server.
EDIT_API_SERVER = "sudoedit /etc/kubernetes/manifests/kube-apiserver.yaml"
_SECRETS = f"--secret {NAMESPACE}/{TLS_SECRET} --ca-secret {NAMESPACE}/{CA_SECRET}"
_FOLDER = "manifests/overlays"
_BOOTSTRAP = "noderestrict certs bootstrap"


def render(extra: Extra, *flags: str) -> list[str]:
    """Return the command that renders the manifests with a policy; none if they are as they came.

    Args:
        extra: policy beyond the in-tree plugin.
        flags: of ``render`` besides those of the policy.
    """
    words = [*policy_flags(extra), *flags]
    return [shlex.join(["noderestrict", "render", "manifests", *words])] if words else []


def applying(options: Options, overlay: str, *flags: str) -> str:
    """Return the commands that install the objects of an overlay, but for its registration.

    Args:
        options: what the cluster is examined for.
        overlay: its name.
        flags: of ``render`` besides those of the policies.
    """
    rendering = _rendering(options, *flags)
    return "\n".join((*rendering, f"kubectl apply -k {_FOLDER}/{overlay}/install"))


def _rendering(options: Options, *flags: str, edits: Sequence[str] = ()) -> list[str]:
    agents = options.agents
    return [*agents.saving, *edits, *render(options.extra, *agents.flags, *flags)]


async def correcting(cluster: Cluster, agent: Agent) -> str:
    """Return the commands that edit an agent's policy, and install it.

    Raises:
        ClusterError: the installation could not be read.
    """
    return await restore(cluster, edits=[cluster.options.agents.editing(agent)])


async def restore(
    cluster: Cluster, *flags: str, overlay: str = "", edits: Sequence[str] = ()
) -> str:
    """Return the commands that install the rendered objects and the registration again.

    Args:
        cluster: where the kind of installation is visible.
        flags: of ``render`` besides those of the policies.
        overlay: to install; the one that is installed if empty.
        edits: what to type before that.

    Raises:
        ClusterError: the installation could not be read.
    """
    overlay = overlay or await installed_overlay(cluster)
    minor = await cluster.minor_to_render_for()
    if minor is not None:
        flags = (*flags, f"--kubernetes-version=1.{max(minor, OLDEST_MINOR)}")
    return "\n".join((*_rendering(cluster.options, *flags, edits=edits), *_install(overlay)))


def rendering_authorizer(cluster: Cluster, minor: int) -> str:
    """Return the commands that render the authorizer for agents.

    Args:
        cluster: which policies it is for.
        minor: Kubernetes version of the API server, 1.``minor``.
    """
    agents = cluster.options.agents
    words = ["noderestrict", "render", "authorizer", *agents.flags]
    return "\n".join((*agents.saving, shlex.join([*words, f"--kubernetes-version=1.{minor}"])))


def _install(overlay: str) -> list[str]:
    folder = f"{_FOLDER}/{overlay or 'control-plane'}"
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
