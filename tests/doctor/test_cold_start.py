"""Whatever the API server needs to reach the webhook must not wait for it."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.render.conditions import NODE_USERS
from noderestrict.render.registration import NAME
from tests.cli.store import stored
from tests.doctor.test_credentials import WEBHOOKS, Cluster, Doctor, statuses
from tests.render.overlays import build

Object = dict[str, Any]
DAEMONS = "/apis/apps/v1/daemonsets"
PRIVILEGED = {"privileged": True}
AUDIENCE = "https://kubernetes.default.svc.cluster.local"


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Doctor]:
    cluster = Cluster()
    with stored(cluster, tmp_path) as kubeconfig:
        yield Doctor(cluster, kubeconfig)


def register(cluster: Cluster, overlay: str) -> Object:
    cluster.install(overlay)
    (value,) = [copy.deepcopy(one) for one in build(overlay) if "webhooks" in one]
    return cluster.put(f"{WEBHOOKS}/{NAME}", value)


def daemon(
    cluster: Cluster,
    name: str,
    context: Object = PRIVILEGED,
    namespace: str = "kube-system",
    **spec: Any,
) -> None:
    containers = [{"name": "c", "securityContext": context}]
    pod = {"hostNetwork": True, "serviceAccountName": name, "containers": containers, **spec}
    value = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": pod}},
    }
    cluster.add(DAEMONS, value)


def api_server(cluster: Cluster, *flags: str) -> None:
    container = {"name": "c", "command": ["kube-apiserver", *flags]}
    pod = {"metadata": {"name": "kube-apiserver-cp"}, "spec": {"containers": [container]}}
    cluster.add("/api/v1/namespaces/kube-system/pods", pod)


def failures(found: list[tuple[str, str]]) -> list[str]:
    return [text for status, text in found if status == "fail"]


def test_kube_proxy_may_be_on_the_way_as_its_tokens_are_left_out(doctor: Doctor) -> None:
    register(doctor.cluster, "self-signed")
    daemon(doctor.cluster, "kube-proxy")
    # It needs no rights over the network.
    daemon(doctor.cluster, "exporter", {"runAsUser": 1})
    assert statuses(doctor("cold start")) == {"pass"}
    told = failures(doctor("registration"))
    assert not any("matchCondition" in text for text in told), told


@pytest.mark.parametrize(
    "context", [PRIVILEGED, {"capabilities": {"add": ["NET_ADMIN"]}}], ids=["privileged", "adds"]
)
def test_a_network_agent_whose_token_waits_for_us_is_no_healthy_way(
    doctor: Doctor, context: Object
) -> None:
    register(doctor.cluster, "self-signed")
    daemon(doctor.cluster, "kube-proxy")
    daemon(doctor.cluster, "agent", context, "kube-agent")
    (text,) = failures(doctor("cold start"))
    assert "tokens for kube-agent/agent depend on it" in text
    # The overlay that needs no Service has no such way.
    doctor.cluster.objects.clear()
    doctor.cluster.lists.pop(f"/apis/apps/v1/namespaces/{NAME}/deployments")
    register(doctor.cluster, "control-plane")
    assert statuses(doctor("cold start")) == {"pass"}


def test_a_network_agent_without_a_token_waits_for_nobody(doctor: Doctor) -> None:
    register(doctor.cluster, "self-signed")
    daemon(doctor.cluster, "kube-proxy")
    daemon(doctor.cluster, "agent", automountServiceAccountToken=False)
    assert failures(doctor("cold start")) == []
    source = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    daemon(doctor.cluster, "other", automountServiceAccountToken=False, volumes=[source])
    assert "kube-system/other" in failures(doctor("cold start"))[0]


@pytest.mark.parametrize(
    ("flags", "healthy"),
    [
        ([], False),
        (["--enable-aggregator-routing=false"], False),
        (["--enable-aggregator-routing=true"], True),
        (["--enable-aggregator-routing"], True),
        (["--enable-aggregator-routing", "--enable-aggregator-routing=false"], False),
    ],
)
def test_an_api_server_that_knows_the_pods_of_a_service_needs_no_kube_proxy(
    doctor: Doctor, flags: list[str], healthy: bool
) -> None:
    value = register(doctor.cluster, "self-signed")
    for webhook in value["webhooks"]:
        webhook["matchConditions"] = [NODE_USERS]
    daemon(doctor.cluster, "kube-proxy")
    api_server(doctor.cluster, *flags)
    assert (failures(doctor("cold start")) == []) is healthy


def test_what_is_left_out_for_other_audiences_is_left_out_never(doctor: Doctor) -> None:
    register(doctor.cluster, "self-signed")
    daemon(doctor.cluster, "kube-proxy")
    api_server(doctor.cluster, f"--service-account-issuer={AUDIENCE}")
    assert failures(doctor("cold start")) == []
    doctor.cluster.lists["/api/v1/namespaces/kube-system/pods"].clear()
    api_server(doctor.cluster, f"--service-account-issuer={AUDIENCE}", "--api-audiences=eks,k3s")
    (text,) = failures(doctor("cold start"))
    assert "kube-apiserver-cp has eks,k3s" in text


def test_an_account_of_ordinary_pods_should_not_be_left_out(doctor: Doctor) -> None:
    register(doctor.cluster, "self-signed")
    daemon(doctor.cluster, "kube-proxy", hostNetwork=False)
    assert ("warn" in statuses(doctor("cold start"))) is True
    assert failures(doctor("cold start")) == []


def test_a_server_beside_an_api_server_must_not_need_the_service_of_the_cluster(
    doctor: Doctor,
) -> None:
    register(doctor.cluster, "control-plane")
    assert statuses(doctor("cold start")) == {"pass"}
    (ours,) = doctor.cluster.lists[f"/apis/apps/v1/namespaces/{NAME}/daemonsets"]
    (container,) = ours["spec"]["template"]["spec"]["containers"]
    container["args"] = [one for one in container["args"] if "--api-server" not in one]
    (text,) = failures(doctor("cold start"))
    assert "daemonset noderestrict-control-plane: reaches the API server through" in text


def test_nothing_waits_where_failures_are_ignored(doctor: Doctor) -> None:
    register(doctor.cluster, "audit")
    daemon(doctor.cluster, "kube-proxy")
    assert statuses(doctor("cold start")) == {"pass"}
