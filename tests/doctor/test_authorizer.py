"""What the doctor finds of an authorizer that is installed beside API servers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cluster.judge import connected
from noderestrict.doctor.checks import authorizer
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding
from noderestrict.doctor.run import examine
from tests.cli.store import stored
from tests.doctor.test_credentials import Cluster

Object = dict[str, Any]
PODS = "/api/v1/namespaces/kube-system/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
DENIED = 'admission webhook "leases.noderestrict.io" denied the request'


class APIServer(Cluster):
    """A cluster whose authorizers, Leases and metrics are a test's choice."""

    def __init__(self) -> None:
        super().__init__()
        self.own_node: Object = {"allowed": True}
        self.leases_are_open = False
        self.lease: tuple[int, Object] = (403, {"message": DENIED})
        self.exposed = b"apiserver_request_total 5\n"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/metrics":
            return 200, self.exposed
        if path == LEASES:
            return self.lease
        if path.endswith("/subjectaccessreviews"):
            spec = body["spec"]
            assert "system:nodes" in spec["groups"]
            if spec["resourceAttributes"]["resource"] == "leases":
                assert not spec["user"].startswith("system:node:")
                allowed = self.leases_are_open and spec["resourceAttributes"]["verb"] == "update"
                return 201, {"status": {"allowed": allowed}}
            return 201, {"status": self.own_node}
        return super().answer(method, path, body)

    def run(self, name: str, node: str, *, ready: bool = True, command: str = "") -> None:
        status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        spec = {"nodeName": node, "containers": [{"name": "c", "command": [command]}]}
        self.add(PODS, {"metadata": {"name": f"{name}-{node}"}, "spec": spec, "status": status})


@pytest.fixture
def cluster() -> APIServer:
    found = APIServer()
    found.run("kube-apiserver", "cp", command="--authorization-config=/a")
    found.run("noderestrict-authorizer", "cp")
    return found


class Doctor:
    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = str(kubeconfig)

    def __call__(self) -> list[Finding]:
        return asyncio.run(self._findings())

    async def _findings(self) -> list[Finding]:
        async with connected(self._kubeconfig, None) as connection:
            found = examine(connection, Options(), [authorizer.CHECK])
            return [finding async for _, finding in found]


@pytest.fixture
def doctor(cluster: APIServer, tmp_path: Path) -> Iterator[Doctor]:
    with stored(cluster, tmp_path) as kubeconfig:
        yield Doctor(kubeconfig)


def worst(found: list[Finding]) -> Finding:
    return max(found, key=lambda one: ("pass", "warn", "unknown", "fail").index(one.status))


def test_an_authorizer_that_answers_passes(doctor: Doctor) -> None:
    found = doctor()
    assert {one.status for one in found} == {"pass"}
    assert [one.message for one in found] == ["ready on cp", "nodes are answered"]


def test_what_is_not_installed_is_not_checked(cluster: APIServer, doctor: Doctor) -> None:
    cluster.lists[PODS] = []
    cluster.own_node = {"allowed": False}
    assert doctor() == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"allowed": False, "evaluationError": "dial tcp 127.0.0.1:8444: refused"}, "8444"),
        ({"allowed": False, "reason": "no opinion"}, "no opinion"),
        ({"allowed": False}, "nobody allows it"),
    ],
)
def test_a_node_that_gets_no_answer_fails(
    cluster: APIServer, doctor: Doctor, status: Object, says: str
) -> None:
    cluster.own_node = status
    found = worst(doctor())
    assert (found.status, says in found.message, bool(found.command)) == ("fail", True, True)


def test_a_server_that_is_not_ready_or_missing_fails(cluster: APIServer, doctor: Doctor) -> None:
    cluster.run("kube-apiserver", "cp2")
    found = worst(doctor())
    assert found.message == "kube-apiserver-cp2: no authorizer runs on cp2"
    cluster.run("noderestrict-authorizer", "cp2", ready=False)
    found = worst(doctor())
    assert found.message == "noderestrict-authorizer-cp2 is not ready"
    assert (found.status, bool(found.command)) == ("fail", True)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((201, {"metadata": {"name": "x"}}), "fail"),
        ((403, {"message": DENIED}), "pass"),
        ((403, {"message": "can only access node lease with the same name"}), "pass"),
        ((403, {"message": "cannot impersonate resource users"}), "unknown"),
        ((500, {"message": "failed calling webhook"}), "unknown"),
    ],
)
def test_leases_may_be_open_to_nodes_only_where_admission_knows_whose_they_are(
    cluster: APIServer, doctor: Doctor, answer: tuple[int, Object], status: str
) -> None:
    cluster.leases_are_open, cluster.lease = True, answer
    (found,) = [one for one in doctor() if "Leases" in one.message]
    assert found.status == status
    assert bool(found.command) == (status != "pass")


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ('apiserver_authorization_decisions_total{type="Node",name="n",decision="allowed"} 2',
         "warn", "Node authorizer answers as well"),
        ('apiserver_authorization_webhook_evaluations_fail_open_total{name="n",result="error"} 3',
         "warn", "no answer to 3 questions"),
        ('apiserver_authorization_webhook_evaluations_fail_open_total{name="n",result="error"} 0',
         "pass", ""),
        ('apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds'
         '{status="failure"} 9', "fail", "changed AuthorizationConfiguration"),
        ('apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds'
         '{status="failure"} 9\n'
         'apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds'
         '{status="success"} 10', "pass", ""),
    ],
)  # fmt: skip
def test_the_api_servers_own_metrics_are_read(
    cluster: APIServer, doctor: Doctor, line: str, status: str, says: str
) -> None:
    cluster.exposed = f"{line}\n".encode()
    found = worst(doctor())
    assert found.status == status
    assert says in found.message
