"""What can be checked of the kind path without kind."""

from pathlib import Path

import pytest
import yaml

from tests.containers import kind


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


def test_what_is_missing_on_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    assert kind.missing() == "no docker, kind, kubectl on the PATH"
