"""Real kubelets with hollow containers: kubemark, a scheduler and all controllers."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.conftest import USER, namespace_ready
from tests.e2e.control_plane import APIError, ControlPlane
from tests.e2e.test_registration import (
    NODES,
    RBAC,
    WEBHOOKS,
    Registered,
    calls,
    configured,
    server,
)

NAMES = ("hollow-1", "hollow-2")
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
#: How long the webhook is away, and how long the steady state is watched, seconds.
AWAY = float(os.environ.get("NODERESTRICT_E2E_AWAY_SECONDS", "30"))
STEADY = float(os.environ.get("NODERESTRICT_E2E_STEADY_SECONDS", "15"))
#: After this time without a heartbeat a node is not ready; shorter than the webhook is away.
GRACE = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, Path]]:
    folder = tmp_path_factory.mktemp("hollow")
    control_plane = ControlPlane({"disable-admission-plugins": "NodeRestriction"})
    try:
        control_plane.needs("kubemark", "kube-controller-manager", "kube-scheduler")
        admin = control_plane.admin
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
        namespace_ready(admin)
        (folder / "kubeconfig").write_text(json.dumps(control_plane.user(USER).kubeconfig()))
        control_plane.start_controllers("*", f"--node-monitor-grace-period={GRACE}s")
        control_plane.start_scheduler()
        yield control_plane, folder
    finally:
        control_plane.stop()


def until(what: str, check: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(APIError):
            if check():
                return
        assert time.monotonic() < end, what
        time.sleep(0.5)


def ready_nodes(control_plane: ControlPlane) -> set[str]:
    return {
        node["metadata"]["name"]
        for node in control_plane.admin.get(NODES)["items"]
        for condition in node["status"].get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


def running(control_plane: ControlPlane) -> list[dict[str, Any]]:
    pods = control_plane.admin.get(f"{PODS}?labelSelector=app%3Dweb")["items"]
    return [pod for pod in pods if pod["status"].get("phase") == "Running"]


def deployment(replicas: int) -> dict[str, Any]:
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "c", "image": "pause"}],
                    "terminationGracePeriodSeconds": 1,
                },
            },
        },
    }


def denials(exposition: str) -> list[str]:
    return [
        line
        for line in exposition.splitlines()
        if line.startswith("noderestrict_admission_decisions_") and 'decision="denied"' in line
    ]


def scale(control_plane: ControlPlane, replicas: int) -> None:
    control_plane.admin.patch(f"{DEPLOYMENTS}/web", {"spec": {"replicas": replicas}})
    until(
        f"{replicas} pods run",
        lambda: (
            len(running(control_plane)) == replicas
            and len(control_plane.admin.get(f"{PODS}?labelSelector=app%3Dweb")["items"]) == replicas
        ),
    )


def test_kubelets_live_with_the_webhook_and_without_it(
    cluster: tuple[ControlPlane, Path],
) -> None:
    control_plane, folder = cluster
    admin = control_plane.admin
    with server(control_plane, folder, "webhook") as webhook:
        registered = Registered(control_plane, admin, folder, webhook)
        with configured(registered, webhook_configuration(registered.client_config(webhook))):
            for name in NAMES:
                control_plane.start_hollow_node(name)
            until("nodes are ready", lambda: ready_nodes(control_plane) == set(NAMES))
            admin.create(DEPLOYMENTS, deployment(4))
            until("pods run", lambda: len(running(control_plane)) == 4)
            # Their tokens have come through the webhook: pods do not start without.
            exposition = webhook.metrics()
            assert 'resource="serviceaccounts"' in exposition
            assert denials(exposition) == []

            before = calls(webhook)
            time.sleep(STEADY)
            assert calls(webhook) - before <= len(NAMES) * max(1, STEADY / 60)

            scale(control_plane, 2)
            assert denials(webhook.metrics()) == []
            port = webhook.port
            webhook.process.kill()
            webhook.process.wait()
            end = time.monotonic() + AWAY
            while time.monotonic() < end:
                assert ready_nodes(control_plane) == set(NAMES)
                time.sleep(1)
            thief = control_plane.node(NAMES[0])
            label = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
            for name in NAMES:
                with pytest.raises(APIError) as error:
                    thief.patch(f"{NODES}/{name}", label)
                # Our webhook's failurePolicy for the own node; the authorizer for the other.
                assert error.value.code in (403, 500)
            with server(control_plane, folder, "webhook", "--port", str(port)) as again:
                scale(control_plane, 6)
                assert denials(again.metrics()) == []
                admin.delete(f"{DEPLOYMENTS}/web")
                until(
                    "pods are gone",
                    lambda: not admin.get(f"{PODS}?labelSelector=app%3Dweb")["items"],
                )
                assert ready_nodes(control_plane) == set(NAMES)
                assert denials(again.metrics()) == []
        assert admin.get(WEBHOOKS)["items"] == []
