"""What an API server makes of rendered policies is no difference for the doctor."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cluster.judge import connected
from noderestrict.doctor.checks import policies
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding
from noderestrict.doctor.run import examine
from noderestrict.render import policies as rendering
from tests.e2e.control_plane import Client, ControlPlane

pytestmark = pytest.mark.e2e

API = "/apis/admissionregistration.k8s.io/v1"
PATHS = {
    "ValidatingAdmissionPolicy": f"{API}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{API}/validatingadmissionpolicybindings",
}


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[Client]:
    client = control_plane.admin
    objects: list[Any] = list(yaml.safe_load_all(rendering.files()["policies.yaml"]))
    for value in objects:
        client.create(PATHS[value["kind"]], value)
    yield client
    for value in objects:
        client.delete(f"{PATHS[value['kind']]}/{value['metadata']['name']}")


def findings(admin: Client, folder: Path) -> list[Finding]:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(admin.kubeconfig()))

    async def examined() -> list[Finding]:
        async with connected(str(kubeconfig), None) as connection:
            found = examine(connection, Options(), [policies.CHECK])
            return [finding async for _, finding in found]

    return asyncio.run(examined())


def test_rendered_policies_are_installed_as_rendered(admin: Client, tmp_path: Path) -> None:
    found = findings(admin, tmp_path)
    assert not [one for one in found if one.status == "fail"]
    assert any("as they are rendered" in one.message for one in found)


def test_a_change_is_found(admin: Client, tmp_path: Path) -> None:
    admin.patch(
        f"{PATHS['ValidatingAdmissionPolicy']}/noderestrict-nodes",
        {"spec": {"failurePolicy": "Ignore"}},
    )
    (failure,) = (one for one in findings(admin, tmp_path) if one.status == "fail")
    assert "/spec/failurePolicy" in failure.message
