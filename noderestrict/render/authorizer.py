"""The configuration with which an API server calls our authorization webhook.

For nodes the webhook never denies, so its position relative to RBAC does not affect the outcome;
after RBAC it gets fewer requests. Nodes cannot read Secrets without it, so it belongs on the
control-plane nodes. To agents it denies what RBAC would allow, so for these users alone it stands
before RBAC, and who cannot be answered is denied.

About nodes there are two entries, each with a cache of its own in the API server. What follows from
the request alone, such as whether a Lease is the node's own, is kept as long as Kubernetes keeps
answers of webhooks; what depends on the pods of the node, only for a second.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from noderestrict.graph.rules import BY_REQUEST
from noderestrict.policy.cel import list_of, quoted
from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP
from noderestrict.render.load import Object

#: Seconds for which API servers cache what a webhook allows, and what it does not, unless told
#: otherwise.
ALLOWED_SECONDS, NOT_ALLOWED_SECONDS = 300, 30


def authorization_configuration(
    kubeconfig: str,
    *,
    seconds: int = 1,
    failure_policy: str = "NoOpinion",
    version: str = "v1",
    agents: Sequence[str] = (),
) -> Object:
    """Return an AuthorizationConfiguration with RBAC, and our webhook for nodes and agents only.

    Args:
        kubeconfig: path, on the API server's machine, of the file that names our server.
        seconds: how long answers are cached that depend on the cluster; access is revoked no faster
            than this.
        failure_policy: ``NoOpinion`` or ``Deny``, for requests without an answer.
        version: ``v1``, or ``v1beta1`` for Kubernetes 1.30 and 1.31.
        agents: CEL expressions that each select reads of agents to ask about.
    """
    of_agents = [
        _webhook(
            f"{_AGENTS}-{number}" if number > 1 else _AGENTS,
            kubeconfig,
            (seconds, seconds),
            "Deny",
            expression,
        )
        for number, expression in enumerate(agents, 1)
    ]
    return {
        "apiVersion": f"apiserver.config.k8s.io/{version}",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            *of_agents,
            {"type": "RBAC", "name": "rbac"},
            _webhook(
                "noderestrict-by-request",
                kubeconfig,
                (ALLOWED_SECONDS, NOT_ALLOWED_SECONDS),
                failure_policy,
                f"{_OF_NODES} && {_BY_REQUEST}",
            ),
            _webhook(
                "noderestrict",
                kubeconfig,
                (seconds, seconds),
                failure_policy,
                f"{_OF_NODES} && !{_BY_REQUEST}",
            ),
        ],
    }


def is_for_agents(name: str) -> bool:
    """Return whether an authorizer of this name is one that asks about agents."""
    return name == _AGENTS or name.startswith(f"{_AGENTS}-")


def answers_by_request(webhook: Mapping[str, Any]) -> bool:
    """Return whether a webhook is asked only what follows from the request alone."""
    conditions = [one.get("expression") for one in webhook.get("matchConditions") or ()]
    return conditions == [f"{_OF_NODES} && {_BY_REQUEST}"]


def _by_request() -> str:
    """Return a test of requests that ``BY_REQUEST`` has, in parentheses.

    API servers make a list anew each time, but that takes them less than to compare texts.
    """
    resource, verb = f"{_ATTRIBUTES}.resource", f"{_ATTRIBUTES}.verb"
    tests = [f"{resource} in {list_of(BY_REQUEST)}"]
    tests += [
        f"({resource} != {quoted(one)} || !({verb} in {list_of(sorted(verbs))}))"
        for one, verbs in BY_REQUEST.items()
        if verbs
    ]
    return f"({' && '.join(tests)})"


_AGENTS = "noderestrict-agents"
_ATTRIBUTES = "request.resourceAttributes"
_OF_NODES = (
    f"has(request.user) && request.user.startsWith({quoted(NODE_USER_PREFIX)}) && "
    f"has(request.groups) && {quoted(NODES_GROUP)} in request.groups && has({_ATTRIBUTES})"
)
_BY_REQUEST = _by_request()


def _webhook(
    name: str, kubeconfig: str, seconds: tuple[int, int], failure_policy: str, condition: str
) -> Object:
    allowed, not_allowed = seconds
    return {
        "type": "Webhook",
        "name": name,
        "webhook": {
            "authorizedTTL": f"{allowed}s",
            "unauthorizedTTL": f"{not_allowed}s",
            "timeout": "3s",
            "subjectAccessReviewVersion": "v1",
            "matchConditionSubjectAccessReviewVersion": "v1",
            "failurePolicy": failure_policy,
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
            "matchConditions": [{"expression": condition}],
        },
    }


def webhook_kubeconfig(
    url: str, certificate_authority: str, client: tuple[str, str] | None = None
) -> Object:
    """Return the kubeconfig with which an API server calls our server.

    Args:
        url: of ``/authorize``.
        certificate_authority: path of the CA of the server's certificate.
        client: paths of the API server's own certificate and key, for a server that verifies
            clients; None for no certificate.
    """
    user = {"client-certificate": client[0], "client-key": client[1]} if client else {}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "noderestrict",
                "cluster": {"server": url, "certificate-authority": certificate_authority},
            }
        ],
        "users": [{"name": "kube-apiserver", "user": user}],
        "contexts": [
            {
                "name": "noderestrict",
                "context": {"cluster": "noderestrict", "user": "kube-apiserver"},
            }
        ],
        "current-context": "noderestrict",
    }


def structured_flags(configuration: str) -> dict[str, str]:
    """Return the API server's flags for an AuthorizationConfiguration, since Kubernetes 1.30.

    Args:
        configuration: path of the file on the API server's machine.
    """
    return {"authorization-config": configuration}


def classic_flags(kubeconfig: str, *, seconds: int = 1) -> dict[str, str]:
    """Return the API server's flags for versions without an AuthorizationConfiguration.

    These cannot select users: the webhook gets every request that RBAC does not allow, and has no
    opinion on those of other users.

    Args:
        kubeconfig: path, on the API server's machine, of the file that names our server.
        seconds: how long answers are cached.
    """
    return {
        "authorization-mode": "RBAC,Webhook",
        "authorization-webhook-config-file": kubeconfig,
        "authorization-webhook-version": "v1",
        "authorization-webhook-cache-authorized-ttl": f"{seconds}s",
        "authorization-webhook-cache-unauthorized-ttl": f"{seconds}s",
    }


def kubeadm_configuration(
    flags: Mapping[str, str], folder: str | None, *, version: str = "v1beta4"
) -> Object:
    """Return kubeadm's ClusterConfiguration that gives API servers flags and files.

    Args:
        flags: of the API server, without dashes.
        folder: mounted at the same path in the API server's pod, or None.
        version: ``v1beta4``, or ``v1beta3`` for kubeadm before 1.31.
    """
    arguments: object = dict(flags)
    if version != "v1beta3":
        arguments = [{"name": name, "value": value} for name, value in flags.items()]
    server: Object = {"extraArgs": arguments}
    if folder is not None:
        server["extraVolumes"] = [
            {
                "name": "noderestrict",
                "hostPath": folder,
                "mountPath": folder,
                "readOnly": True,
                "pathType": "Directory",
            }
        ]
    return {
        "apiVersion": f"kubeadm.k8s.io/{version}",
        "kind": "ClusterConfiguration",
        "apiServer": server,
    }


def kind_cluster(
    patch: Object, *, workers: int = 2, folder: tuple[str, str] | None = None
) -> Object:
    """Return a kind cluster with one control-plane node that kubeadm sets up with a patch.

    Args:
        patch: of kubeadm's configuration.
        workers: number of worker nodes.
        folder: of the host, and where to mount it in the control-plane node; or None.
    """
    control_plane: Object = {
        "role": "control-plane",
        "kubeadmConfigPatches": [yaml.safe_dump(patch, sort_keys=False)],
    }
    if folder is not None:
        host, node = folder
        control_plane["extraMounts"] = [{"hostPath": host, "containerPath": node, "readOnly": True}]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [control_plane, *({"role": "worker"} for _ in range(workers))],
    }
