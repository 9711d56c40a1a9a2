"""Servers are found in whatever namespace they run."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import main
from noderestrict.cluster.judge import connected
from noderestrict.doctor.cluster import Cluster as Examined
from noderestrict.doctor.namespace import find_namespace
from tests.cli.store import stored
from tests.doctor.test_credentials import WEBHOOKS, Cluster

DEPLOYMENTS = "/apis/apps/v1/deployments"
REGISTRATION = f"{WEBHOOKS}/noderestrict"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    with stored(cluster, tmp_path) as file:
        yield str(file)


def found(kubeconfig: str) -> str:
    async def find() -> str:
        async with connected(kubeconfig, None) as connection:
            return await find_namespace(Examined(connection))

    return asyncio.run(find())


def register(cluster: Cluster, **client: Any) -> None:
    webhooks = [{"name": "nodes.noderestrict.io", "clientConfig": client}]
    metadata = {"name": "noderestrict"}
    cluster.objects[REGISTRATION] = {"metadata": metadata, "webhooks": webhooks}


def run_server(cluster: Cluster, namespace: str, command: str = "serve") -> None:
    pod = {"containers": [{"name": "c", "args": [command]}]}
    cluster.add(
        DEPLOYMENTS,
        {
            "metadata": {"name": "noderestrict", "namespace": namespace},
            "spec": {"template": {"spec": pod}},
        },
    )


def test_the_registered_service_says_where(cluster: Cluster, kubeconfig: str) -> None:
    register(cluster, service={"name": "noderestrict", "namespace": "isolation"})
    run_server(cluster, "trial")
    assert found(kubeconfig) == "isolation"


def test_else_the_servers_themselves_do(cluster: Cluster, kubeconfig: str) -> None:
    register(cluster, url="https://127.0.0.1:8443/validate")
    run_server(cluster, "isolation")
    run_server(cluster, "others", "certs")
    assert found(kubeconfig) == "isolation"


def test_it_is_the_usual_one_where_none_can_be_seen(cluster: Cluster, kubeconfig: str) -> None:
    assert found(kubeconfig) == "noderestrict"
    cluster.refused.add(("GET", DEPLOYMENTS))
    assert found(kubeconfig) == "noderestrict"


def test_of_several_one_must_be_named(
    cluster: Cluster, kubeconfig: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_server(cluster, "b")
    run_server(cluster, "a")
    ask = ["doctor", "--kubeconfig", kubeconfig]
    assert main(ask) == 2
    assert capsys.readouterr().err.endswith(
        "servers run in namespaces a, b: say which with --namespace\n"
    )
    main([*ask, "--namespace", "a", "--output", "json"])
    rights = [one for one in json.loads(capsys.readouterr().out) if one["check"] == "rights"]
    assert "system:serviceaccount:a:noderestrict cannot" in rights[0]["message"]
