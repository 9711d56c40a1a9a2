"""The largest objects that a tenant or a node can have stored, beside everybody's requests."""

from typing import Any

import pytest

from tests.e2e.conftest import Cluster
from tests.e2e.control_plane import APIError

PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction"}


def claim(name: str, requests: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi", **requests}},
            "storageClassName": "none",
        },
    }


def test_a_claim_with_tens_of_thousands_of_requests_is_reported_on(cluster: Cluster) -> None:
    many = {f"example.com/r{number}": f"{number + 1}" for number in range(30_000)}
    cluster.admin.create(CLAIMS, claim("large", many))
    cluster.n1.patch(f"{CLAIMS}/large/status", {"status": {"capacity": {"storage": "2Gi"}}})
    with pytest.raises(APIError, match=r"status\.phase"):
        cluster.n1.patch(f"{CLAIMS}/large/status", {"status": {"phase": "Lost"}})
    cluster.admin.delete(f"{CLAIMS}/large")


def test_a_pod_with_tens_of_thousands_of_labels_is_reported_on(cluster: Cluster) -> None:
    cluster.pod("labelled")
    labels = {f"l{number}": "" for number in range(20_000)}
    cluster.admin.patch(f"{PODS}/labelled", {"metadata": {"labels": labels}})
    cluster.n1.patch(f"{PODS}/labelled/status", {"status": {"phase": "Running"}})
    with pytest.raises(APIError, match=r"metadata\.labels"):
        cluster.n1.patch(f"{PODS}/labelled/status", {"metadata": {"labels": {"l7": "x"}}})
    with pytest.raises(APIError, match="admission webhook"):
        cluster.n2.create(
            f"{PODS}/labelled/eviction", {**EVICTION, "metadata": {"name": "labelled"}}
        )
    cluster.n1.create(f"{PODS}/labelled/eviction", {**EVICTION, "metadata": {"name": "labelled"}})


def test_a_node_with_tens_of_thousands_of_labels_is_judged_like_any_other(
    cluster: Cluster,
) -> None:
    many = {f"node.kubernetes.io/l{number}": "" for number in range(20_000)}
    cluster.n1.patch("/api/v1/nodes/n1", {"metadata": {"labels": many}})
    cluster.n1.patch("/api/v1/nodes/n1/status", {"status": {"phase": "Running"}})
    with pytest.raises(APIError, match=r"node-restriction\.kubernetes\.io/a"):
        cluster.n1.patch(
            "/api/v1/nodes/n1", {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
        )
    cluster.n1.patch("/api/v1/nodes/n1", {"metadata": {"labels": dict.fromkeys(many)}})
