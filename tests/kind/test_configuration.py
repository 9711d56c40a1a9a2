"""What can be checked of the kind path without kind."""

import subprocess
from pathlib import Path

import pytest
import yaml

from noderestrict.render.workload import IMAGE
from tests.kind import __main__ as kind


def test_the_plugin_is_off_for_every_version_of_kubeadm() -> None:
    patches = kind.cluster_configuration()["nodes"][0]["kubeadmConfigPatches"]  # type: ignore[index]
    found = {}
    for patch in map(yaml.safe_load, patches):
        arguments = patch["apiServer"]["extraArgs"]
        if isinstance(arguments, list):
            arguments = {one["name"]: one["value"] for one in arguments}
        found[patch["apiVersion"]] = arguments["disable-admission-plugins"]
    assert found == {f"kubeadm.k8s.io/{version}": "NodeRestriction" for version in kind.VERSIONS}


def test_the_overlay_uses_the_image_that_make_builds() -> None:
    make = ["make", "--dry-run", "--no-print-directory", "image"]
    printed = subprocess.run(make, cwd=kind.ROOT, capture_output=True, text=True, check=True).stdout
    assert f"--tag {IMAGE} " in printed
    assert (kind.OVERLAY / "install" / "kustomization.yaml").exists()
    assert Path(kind.REGISTRATION[1]).exists()


def test_what_is_missing_on_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    with pytest.raises(SystemExit, match="docker, kind, kubectl"):
        kind.main()
