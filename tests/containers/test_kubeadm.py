"""What can be checked of the cluster of containers without one."""

import os
from pathlib import Path

import pytest

from tests.containers import machine
from tests.containers.kubeadm import configuration


def test_the_plugin_that_we_stand_in_for_is_off() -> None:
    cluster = configuration("10.0.0.1", "v1.36.3")[1]
    arguments = {one["name"]: one["value"] for one in cluster["apiServer"]["extraArgs"]}
    assert arguments["disable-admission-plugins"] == "NodeRestriction"
    assert "NodeRestriction" not in arguments["enable-admission-plugins"]


def test_what_is_missing_on_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    assert machine.missing() == f"no {', '.join(machine.COMMANDS)} on the PATH"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.missing() == "not root"
