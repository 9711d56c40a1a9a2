"""The configuration with which an API server calls our authorization webhook.

For nodes the webhook never denies, so its position relative to RBAC does not affect the outcome;
after RBAC it gets fewer requests. Nodes cannot read Secrets without it, so it belongs on the
control-plane nodes. To agents it denies what RBAC would allow, so for these users alone it stands
before RBAC, and who cannot be answered is denied.
"""

from collections.abc import Mapping, Sequence

import yaml

from noderestrict.render.load import Object


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
        seconds: how long answers are cached; access is revoked no faster than this.
        failure_policy: ``NoOpinion`` or ``Deny``, for requests without an answer.
        version: ``v1``, or ``v1beta1`` for Kubernetes 1.30 and 1.31.
        agents: CEL expressions that each select reads of agents to ask about.
    """
    of_agents = [
        _webhook(
            f"{_AGENTS}-{number}" if number > 1 else _AGENTS,
            kubeconfig,
            seconds,
            "Deny",
            [{"expression": expression}],
        )
        for number, expression in enumerate(agents, 1)
    ]
    return {
        "apiVersion": f"apiserver.config.k8s.io/{version}",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            *of_agents,
            {"type": "RBAC", "name": "rbac"},
            _webhook("noderestrict", kubeconfig, seconds, failure_policy, _NODES),
        ],
    }


def is_for_agents(name: str) -> bool:
    """Return whether an authorizer of this name is one that asks about agents."""
    return name == _AGENTS or name.startswith(f"{_AGENTS}-")


_AGENTS = "noderestrict-agents"
_NODES: Sequence[Object] = (
    {
        "expression": "has(request.user) && has(request.groups) && "
        "request.user.startsWith('system:node:') && "
        "'system:nodes' in request.groups"
    },
    {"expression": "has(request.resourceAttributes)"},
)


def _webhook(
    name: str, kubeconfig: str, seconds: int, failure_policy: str, conditions: Sequence[Object]
) -> Object:
    return {
        "type": "Webhook",
        "name": name,
        "webhook": {
            "authorizedTTL": f"{seconds}s",
            "unauthorizedTTL": f"{seconds}s",
            "timeout": "3s",
            "subjectAccessReviewVersion": "v1",
            "matchConditionSubjectAccessReviewVersion": "v1",
            "failurePolicy": failure_policy,
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
            "matchConditions": [dict(condition) for condition in conditions],
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
