"""What can be checked of the kind path without kind."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import kind
from tests.containers.images import ROOT


def test_the_plugin_is_off_for_every_version_of_kubeadm() -> None:
    found = {}
    for patch in map(
        yaml.safe_load, kind.cluster_configuration()["nodes"][0]["kubeadmConfigPatches"]
    ):
        arguments = patch["apiServer"]["extraArgs"]
        if isinstance(arguments, list):
            arguments = {one["name"]: one["value"] for one in arguments}
        found[patch["apiVersion"]] = arguments["disable-admission-plugins"]
    assert found == {f"kubeadm.k8s.io/{version}": "NodeRestriction" for version in kind.VERSIONS}


def test_the_example_is_the_cluster_of_the_tests() -> None:
    def parsed(cluster: dict[str, Any]) -> dict[str, Any]:
        node = cluster["nodes"][0]
        patches = [yaml.safe_load(one) for one in node["kubeadmConfigPatches"]]
        return {
            **cluster,
            "nodes": [{**node, "kubeadmConfigPatches": patches}, *cluster["nodes"][1:]],
        }

    example = yaml.safe_load((ROOT / "examples" / "kind.yaml").read_text())
    assert parsed(example) == parsed(kind.cluster_configuration())


def test_what_is_missing_on_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    assert kind.missing() == "no docker, kind, kubectl on the PATH"
