"""Half an hour of ordinary life: no kubelet may be refused anything, and no stolen one allowed."""

import json
import os
import time

import pytest

from tests.containers.cluster import Cluster
from tests.containers.images import PAUSE_IMAGE
from tests.containers.product import Product
from tests.containers.requests import honest, hostile
from tests.containers.traffic import Traffic, refused_by_us

pytestmark = [pytest.mark.cluster, pytest.mark.full]

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
STATIC = "/etc/kubernetes/manifests/lamp.yaml"


def static_pod() -> str:
    container = {"name": "lamp", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    metadata = {"name": "lamp", "namespace": "shop"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def second_daemon_set(cluster: Cluster) -> str:
    """Run another DaemonSet like the one whose pods are asked about; return its name."""
    given = cluster.kubectl.json("get", "daemonset", "agent", "-n", "shop")
    labels = {"app": "churn"}
    spec = {**given["spec"], "selector": {"matchLabels": labels}}
    spec["template"]["metadata"] = {"labels": labels}
    value = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "churn"}}
    cluster.kubectl("apply", "-n", "shop", "-f", "-", stdin=json.dumps({**value, "spec": spec}))
    return "daemonset/churn"


def live_on(cluster: Cluster, turn: int) -> bool:
    """Do what operators and controllers do all day; tells whether a node was drained."""
    kubectl, second = cluster.kubectl, cluster.workers[1]
    shop = ("-n", "shop")
    wait = ("--timeout=240s",)
    workloads = ("deployment/web", "daemonset/churn", "statefulset/db")
    for workload in workloads:
        kubectl("rollout", "restart", workload, *shop)
    cluster.exec(second, "sh", "-c", f"mkdir -p {STATIC.rpartition('/')[0]}; cat > {STATIC}",
                 stdin=static_pod())  # fmt: skip
    job = {"parallelism": 4, "completions": 8}
    spec = {"serviceAccountName": "web", "restartPolicy": "Never", "containers": [
        {"name": "j", "image": "test.local/shell:1", "imagePullPolicy": "Never",
         "command": ["sleep", "0.2"]}]}  # fmt: skip
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"batch-{turn}"},
            "spec": {**job, "ttlSecondsAfterFinished": 5, "template": {"spec": spec}}}  # fmt: skip
    kubectl("create", "-f", "-", *shop, stdin=json.dumps(body))
    for workload in workloads:
        kubectl("rollout", "status", workload, *shop, *wait)
    kubectl("scale", "deployment/web", f"--replicas={4 + turn % 3}", *shop)
    cluster.exec(second, "rm", STATIC)
    drains = turn % 3 == 2
    if drains:
        try:
            kubectl("drain", second, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
                    *wait)  # fmt: skip
        finally:
            kubectl("uncordon", second)
    return drains


@pytest.mark.parametrize("overlay", ["control-plane"])
def test_no_kubelet_is_refused_and_no_stolen_one_allowed(product: Product, overlay: str) -> None:
    cluster = product.cluster
    if not cluster.audit_logs():
        pytest.skip("this cluster keeps no audit log")
    product.install(overlay)
    churn = second_daemon_set(cluster)
    node, other = cluster.workers
    started, end = time.time(), time.monotonic() + MINUTES * 60
    turns = drains = 0
    try:
        with Traffic(
            cluster, node, honest(cluster, node) + hostile(cluster, node, other)
        ) as traffic:
            while time.monotonic() < end:
                drains += live_on(cluster, turns)
                turns += 1
    finally:
        cluster.kubectl("delete", churn, "-n", "shop")
    written = cluster.written(started)
    refused = [one for one in written if refused_by_us(one)]
    print(f"  {turns} turns, {drains} drains: {len(refused)} of {len(written)} writes of real"
          f" kubelets refused; of {traffic.answered()} requests with a kubelet's credential"
          f" {traffic.lost()} answered wrongly")  # fmt: skip
    for event in refused[:5]:
        print("  ", event["requestURI"], event["responseStatus"]["message"])
    assert not refused
    assert traffic.lost() == 0
