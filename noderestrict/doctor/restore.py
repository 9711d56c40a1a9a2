"""What to type to install the rendered objects again."""

import shlex
from collections.abc import Iterator, Sequence

from noderestrict.agents.file import Agent
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.overlay import installed_overlay, installed_release
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import OLDEST_MINOR
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.workload import CA_SECRET, TLS_SECRET

#: What ``doctor`` is run with to see what another user cannot.
AS_ADMINISTRATOR = "noderestrict doctor --kubeconfig /etc/kubernetes/admin.conf"
#: What shows whether the API server answers, and if not, why.
REACHABLE = "kubectl get --raw /readyz?verbose"
#: Where kubeadm keeps the flags of an API server.
EDIT_API_SERVER = "sudoedit /etc/kubernetes/manifests/kube-apiserver.yaml"
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


def applying(options: Options, overlay: str, *flags: str, release: str = "") -> str:
    """Return the commands that install the objects of an overlay, but for its registration.

    Args:
        options: what the cluster is examined for.
        overlay: its name.
        flags: of ``render`` besides those of the policies.
        release: of Helm that has installed them, "" for none.
    """
    install = f"kubectl apply -k {_FOLDER}/{overlay}/install"
    if release:
        install = _upgrade(options, release)
    return "\n".join((*_rendering(options, *flags), install))


def _upgrade(options: Options, release: str, *values: str) -> str:
    """Return the command that renders a release of the chart again."""
    words = ["helm", "upgrade", release, "manifests/chart", "--namespace", options.namespace,
             "--reset-then-reuse-values"]  # fmt: skip
    return shlex.join([*words, *(f"--set={one}" for one in values)])


def _rendering(options: Options, *flags: str, edits: Sequence[str] = ()) -> list[str]:
    agents = options.agents
    flags = (*flags, *_place(options, flags))
    return [*agents.saving, *edits, *render(options.extra, *agents.flags, *flags)]


def _place(options: Options, given: Sequence[str]) -> Iterator[str]:
    """Yield the flags that say where the servers run, unless they are given."""
    plain = Options()
    for flag, value, usual in (
        ("--namespace", options.namespace, plain.namespace),
        ("--webhook-name", options.configuration, plain.configuration),
    ):
        if value != usual and not any(one.startswith(f"{flag}=") for one in given):
            yield f"{flag}={value}"


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
    release = await installed_release(cluster)
    other, overlay = overlay, overlay or await installed_overlay(cluster)
    minor = await cluster.minor_to_render_for()
    if minor is not None:
        flags = (*flags, f"--kubernetes-version=1.{max(minor, OLDEST_MINOR)}")
    rendering = _rendering(cluster.options, *flags, edits=edits)
    if not release:
        return "\n".join((*rendering, *_install(cluster.options, overlay)))
    values = [f"placement={other}"] if other == "control-plane" else []
    return "\n".join((*rendering, _upgrade(cluster.options, release, *values)))


def rendering_authorizer(cluster: Cluster, minor: int) -> str:
    """Return the commands that render the authorizer for agents.

    Args:
        cluster: which policies it is for.
        minor: Kubernetes version of the API server, 1.``minor``.
    """
    agents = cluster.options.agents
    words = ["noderestrict", "render", "authorizer", *agents.flags]
    return "\n".join((*agents.saving, shlex.join([*words, f"--kubernetes-version=1.{minor}"])))


def _install(options: Options, overlay: str) -> list[str]:
    secret = f"--secret {options.namespace}/{TLS_SECRET}"
    folder = f"{_FOLDER}/{overlay or 'control-plane'}"
    registration = f"{folder}/enforce/registration.yaml"
    match overlay:
        case "":
            keys = "--directory tls --ca-directory ca"
            return [f"{_BOOTSTRAP} {keys} --registration {registration}"]
        case "audit":
            # Nobody keeps a CA where nodes may label themselves trusted.
            keys = secret
        case _:
            keys = f"{secret} --ca-secret {options.namespace}/{CA_SECRET}"
    return [
        f"kubectl apply -k {folder}/install",
        f"{_BOOTSTRAP} {keys}",
        f"{_BOOTSTRAP} {keys} --registration {registration}",
    ]
