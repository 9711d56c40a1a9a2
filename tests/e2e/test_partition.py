"""Stores and answers while the way to the API server is gone, and after."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from noderestrict.api.resources import RESOURCES
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.judge import ClusterJudge
from noderestrict.cluster.reflector import Pace
from noderestrict.policy.records import RECORDS
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import Metrics
from tests.e2e.conftest import USER, Cluster
from tests.e2e.control_plane import ISSUER
from tests.e2e.proxy import Network
from tests.e2e.test_admission import PODS
from tests.serving.tls import serving

# Longer than a watch may be silent, in these tests.
SECONDS = float(os.environ.get("NODERESTRICT_E2E_PARTITION_SECONDS", "10"))


@contextlib.asynccontextmanager
async def following(cluster: Cluster, port: int, folder: Path) -> AsyncIterator[ClusterJudge]:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(cluster.control_plane.user(USER).kubeconfig(port)))
    connection = await Connection.open(str(kubeconfig), None)
    judge = ClusterJudge(
        connection, Settings.for_version(), Metrics(), pace=Pace(inactivity=5, jitter=lambda: 0.2)
    )
    task = asyncio.create_task(judge.run())
    try:
        async with asyncio.timeout(30):
            while not judge.informers.has_synced():  # noqa: ASYNC110 (a state of many reflectors)
                await asyncio.sleep(0.05)
        yield judge
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await connection.close()


def truth(cluster: Cluster, plural: str, path: str) -> dict[tuple[str, str], object]:
    """Return what a fresh list holds, as records."""
    struct, reduce = RESOURCES[plural].struct, RECORDS[plural]
    listed = cluster.admin.get(path)["items"]
    records = [reduce(msgspec.convert(item, struct)) for item in listed]
    return {(getattr(record, "namespace", ""), record.name): record for record in records}


async def becomes_true(cluster: Cluster, judge: ClusterJudge) -> None:
    """Wait until pods and nodes are those of a fresh list."""
    async with asyncio.timeout(30):
        for plural, path in (("pods", "/api/v1/pods"), ("nodes", "/api/v1/nodes")):
            while True:
                fresh = await asyncio.to_thread(truth, cluster, plural, path)
                store = judge.informers.stores[plural]
                if {key: store.get(*key) for key in store.held()} == fresh:
                    break
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["held-back", "reset"])
async def test_after_a_partition_the_stores_equal_a_fresh_list(
    cluster: Cluster, tmp_path: Path, how: str
) -> None:
    with Network.between(cluster.control_plane.port) as network:
        async with following(cluster, network.port, tmp_path) as judge:
            await becomes_true(cluster, judge)
            for number in range(5):
                await asyncio.to_thread(cluster.pod, f"gone-{how}-{number}")
            await becomes_true(cluster, judge)
            network.part()
            for number in range(5):
                await asyncio.to_thread(cluster.pod, f"new-{how}-{number}", "n2")
                await asyncio.to_thread(cluster.admin.delete, f"{PODS}/gone-{how}-{number}")
            await asyncio.sleep(SECONDS)
            # Compacted: the watch can only start again with a list.
            await asyncio.to_thread(cluster.control_plane.compact)
            assert judge.informers.stores["pods"].get("default", f"gone-{how}-0") is not None
            network.heal(reset=how == "reset")
            await becomes_true(cluster, judge)


def deletion(name: str) -> bytes:
    request = {
        "uid": "1",
        "operation": "DELETE",
        "namespace": "default",
        "name": name,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "userInfo": {"username": "system:node:n1", "groups": ["system:nodes"]},
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(review).encode()


def test_nothing_is_refused_for_good_while_the_api_server_cannot_be_asked(
    cluster: Cluster, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    with Network.between(cluster.control_plane.port) as network:
        kubeconfig.write_text(json.dumps(cluster.control_plane.user(USER).kubeconfig(network.port)))
        with serving(
            tmp_path,
            *("--kubeconfig", str(kubeconfig), "--api-audiences", ISSUER),
            ca=cluster.control_plane.ca,
            state=False,
        ) as server:

            def answer(name: str) -> tuple[bool, int]:
                response = json.loads(server.request("/validate?timeout=1s", deletion(name))[1])[
                    "response"
                ]
                return response["allowed"], response.get("status", {}).get("code", 0)

            cluster.pod("known")
            end = time.monotonic() + 30
            while server.request("/readyz")[0] != 200 or not answer("known")[0]:
                assert time.monotonic() < end
                time.sleep(0.1)
            network.part()
            cluster.pod("unseen")
            assert answer("known") == (True, 0)
            assert answer("unseen") == (False, 500)
            network.heal()
            while answer("unseen") != (True, 0):
                assert time.monotonic() < end + SECONDS
                time.sleep(0.1)
