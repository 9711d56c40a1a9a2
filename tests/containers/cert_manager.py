"""cert-manager in a cluster of containers, as its chart installs it but for its rights."""

import re
from pathlib import Path
from typing import Any

import yaml

from noderestrict.render.load import Object
from tests.containers.images import REGISTRY, ROOT
from tests.containers.machine import Machine

MODULE = ROOT / "tests" / "assets" / "cert-manager" / "go.mod"
NAMESPACE = "cert-manager"
PREFIX = "cert-manager-"
WEBHOOK = f"{PREFIX}webhook"
_ELECTION = f"--leader-election-namespace={NAMESPACE}"
_ADMISSION = "admissionregistration.k8s.io/v1"
ARGUMENTS = {
    "controller": [_ELECTION, f"--cluster-resource-namespace={NAMESPACE}"],
    "cainjector": [_ELECTION],
    "webhook": [
        "--secure-port=10250",
        f"--dynamic-serving-ca-secret-namespace={NAMESPACE}",
        f"--dynamic-serving-ca-secret-name={WEBHOOK}-ca",
        f"--dynamic-serving-dns-names={WEBHOOK}.{NAMESPACE}.svc",
    ],
}


def version() -> str:
    """Return the version that is built."""
    found = re.search(r"github.com/cert-manager/cert-manager (v\S+)", MODULE.read_text())
    assert found
    return found[1]


def run_cert_manager(cluster: Machine) -> None:
    """Run cert-manager on the control-plane node, and wait until it answers."""
    archives = [cluster.builder.command(PREFIX + name, version()) for name in ARGUMENTS]
    for archive in archives:
        cluster.import_image(cluster.control_plane, archive)
    assert cluster.cert_manager is not None
    given = (cluster.cert_manager / "crds").iterdir()
    objects = [*map(definition, given), *manifests(cluster.control_plane)]
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
    for name in ARGUMENTS:
        cluster.kubectl("rollout", "status", f"deployment/{PREFIX}{name}", "-n", NAMESPACE,
                        "--timeout=180s")  # fmt: skip


def definition(path: Path) -> Object:
    """Return a CustomResourceDefinition of the chart without the labels, which are templates."""
    value: Object = yaml.safe_load(path.read_text())
    del value["metadata"]["labels"]
    return value


def manifests(node: str) -> list[Object]:
    """Return everything else.

    Args:
        node: that runs it.
    """
    account = {"name": NAMESPACE, "namespace": NAMESPACE}
    rights = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
    service = {"selector": {"app": WEBHOOK}, "ports": [{"port": 443, "targetPort": 10250}]}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAMESPACE},
            "roleRef": {**rights, "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
        *(deployment(name, node) for name in ARGUMENTS),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": WEBHOOK, "namespace": NAMESPACE},
            "spec": service,
        },
        registration("ValidatingWebhookConfiguration", "/validate"),
        registration("MutatingWebhookConfiguration", "/mutate"),
    ]


def deployment(name: str, node: str) -> Object:
    """Return the Deployment of a command."""
    labels = {"app": PREFIX + name}
    field = {"fieldRef": {"fieldPath": "metadata.namespace"}}
    container: dict[str, Any] = {
        "name": name,
        "image": f"{REGISTRY}/{PREFIX}{name}:{version()}",
        "imagePullPolicy": "Never",
        "args": ARGUMENTS[name],
        "env": [{"name": "POD_NAMESPACE", "valueFrom": field}],
    }
    if name == "webhook":
        probe = {"path": "/healthz", "port": 6080}
        container["readinessProbe"] = {"httpGet": probe, "periodSeconds": 1}
    spec = {
        "serviceAccountName": NAMESPACE,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": PREFIX + name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def registration(kind: str, path: str) -> Object:
    """Return a registration of cert-manager's own webhook, which refuses what is not valid."""
    groups = ["cert-manager.io", "acme.cert-manager.io"]
    operations = {"operations": ["CREATE", "UPDATE"], "resources": ["*/*"]}
    return {
        "apiVersion": _ADMISSION,
        "kind": kind,
        "metadata": {
            "name": WEBHOOK,
            "annotations": {"cert-manager.io/inject-ca-from-secret": f"{NAMESPACE}/{WEBHOOK}-ca"},
        },
        "webhooks": [
            {
                "name": "webhook.cert-manager.io",
                "rules": [{"apiGroups": groups, "apiVersions": ["v1"], **operations}],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 10,
                "clientConfig": {
                    "service": {"name": WEBHOOK, "namespace": NAMESPACE, "path": path}
                },
            }
        ],
    }
