"""The configuration of a cluster of containers, for kubeadm."""

from typing import Any

from tests.containers.images import REGISTRY

POD_NETWORK = "10.244.0.0/16"
#: Nothing leads to the cluster from anywhere else.
TOKEN = "abcdef.0123456789abcdef"
ETCD_TAG = "test"
SOCKET = "unix:///run/containerd/containerd.sock"
Document = dict[str, Any]
#: Below this folder of the control-plane node: the policy, and what nodes have written.
AUDIT = "/var/log/kubernetes"
AUDIT_POLICY: Document = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "userGroups": ["system:nodes"],
            "verbs": ["create", "update", "patch", "delete"],
        },
        {"level": "None"},
    ],
}


def flags(**values: str) -> list[dict[str, str]]:
    """Return arguments as kubeadm has them."""
    return [{"name": name.replace("_", "-"), "value": value} for name, value in values.items()]


def registration() -> Document:
    return {"criSocket": SOCKET, "imagePullPolicy": "Never"}


def configuration(address: str, version: str) -> list[Document]:
    """Return what ``kubeadm init`` reads.

    Args:
        address: of the control-plane node.
        version: of Kubernetes, with the letter.
    """
    return [
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": TOKEN}],
            "localAPIEndpoint": {"advertiseAddress": address, "bindPort": 6443},
            "nodeRegistration": registration(),
        },
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": version,
            "imageRepository": REGISTRY,
            # What a second control-plane node asks for.
            "controlPlaneEndpoint": f"{address}:6443",
            "networking": {"podSubnet": POD_NETWORK},
            "etcd": {"local": {"imageRepository": REGISTRY, "imageTag": ETCD_TAG}},
            "apiServer": {
                "extraArgs": flags(
                    disable_admission_plugins="NodeRestriction",
                    enable_admission_plugins="",
                    audit_policy_file=f"{AUDIT}/policy.yaml",
                    audit_log_path=f"{AUDIT}/audit.log",
                    audit_log_maxsize="2000",
                ),
                "extraVolumes": [{"name": "audit", "hostPath": AUDIT, "mountPath": AUDIT}],
            },
            "controllerManager": {"extraArgs": flags(node_monitor_grace_period="20s")},
        },
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            # The disk is not ours.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": dict.fromkeys(
                ("imagefs.available", "nodefs.available", "nodefs.inodesFree"), "0%"
            ),
        },
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            # These sysctls belong to the machine.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        },
    ]


def join_configuration(endpoint: str, address: str | None, key: str | None) -> Document:
    """Return what ``kubeadm join`` reads.

    Args:
        endpoint: address of the first control-plane node.
        address: of the node that joins, if it gets a control plane; else None.
        key: of the certificates that the first one has uploaded, then.
    """
    control_plane = {
        "localAPIEndpoint": {"advertiseAddress": address, "bindPort": 6443},
        "certificateKey": key,
    }
    return {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "token": TOKEN,
                "apiServerEndpoint": f"{endpoint}:6443",
                "unsafeSkipCAVerification": True,
            }
        },
        "nodeRegistration": registration(),
        **({"controlPlane": control_plane} if address else {}),
    }
