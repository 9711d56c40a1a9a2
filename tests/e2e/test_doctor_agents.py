"""The doctor's checks of agents on a real API server that asks the webhook and the authorizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.agents.load import parse
from noderestrict.cli import main
from noderestrict.render.agents import read_conditions
from noderestrict.render.authorizer import authorization_configuration
from tests.e2e.test_agents import POLICY, RBAC, Cluster
from tests.e2e.test_agents import cluster as cluster  # a fixture

Object = dict[str, Any]
Found = dict[str, list[tuple[str, str]]]
Examined = Callable[..., Found]


@pytest.fixture
def doctor(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Examined:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(cluster.admin.kubeconfig()))
    authorization = tmp_path / "authorization.yaml"
    conditions = read_conditions(parse(POLICY.encode(), "agents.yaml").agents, 36)
    authorization.write_text(yaml.safe_dump(authorization_configuration("/w", agents=conditions)))

    def examine(policy: str = POLICY, *flags: str) -> Found:
        file = tmp_path / "agents.yaml"
        file.write_text(policy)
        main(
            ["doctor", "--kubeconfig", str(kubeconfig), "--server-user", "noderestrict",
             "--agents", str(file), "--authorization-config", str(authorization),
             "--metrics", f"127.0.0.1:{cluster.server.metrics_port}", "--output", "json", *flags]
        )  # fmt: skip
        found: Found = {}
        for one in json.loads(capsys.readouterr().out):
            found.setdefault(one["check"], []).append((one["status"], one["message"]))
        return found

    return examine


def statuses(found: Found, check: str) -> list[str]:
    return [status for status, _ in found[check]]


def test_agents_that_are_held_are_found_so(doctor: Examined) -> None:
    found = doctor()
    for check in ("agent policies", "agent tokens", "agent registration", "agent start",
                  "agent reads", "agent modes", "agent identity"):  # fmt: skip
        assert set(statuses(found, check)) == {"pass"}, found[check]
    assert any("denied, before RBAC allows them" in text for _, text in found["agent reads"])
    # These accounts are the cluster's administrators, and no DaemonSet runs as them.
    assert "lets it do everything, which no policy can hold" in found["agent rights"][0][1]
    assert set(statuses(found, "agent accounts")) == {"fail"}


def test_reads_that_the_authorizer_leaves_to_rbac_are_found(doctor: Examined) -> None:
    # What is tried first: the authorizer leaves reads of services to RBAC.
    first, others = POLICY.split("  - {resources: [nodes], relation: own-node}\n")
    others = others.replace("  - {resources: [services], relation: any}\n", "")
    services = "  - {resources: [services], verbs: [get], relation: {name: '{node}'}}\n"
    found = doctor(f"{first}{services}{others}")
    assert "fail" in statuses(found, "agent reads")
    assert "fail" in statuses(found, "agent modes")
    assert any("its policy refuses to get services/" in text for _, text in found["agent reads"])
    assert any("matchConditions are not those" in text for _, text in found["agent reads"])
    assert any("another policy of driver" in text for _, text in found["agent modes"])


@pytest.mark.parametrize(
    ("resource", "verb", "says"),
    [
        ("serviceaccounts/token", "create", "make tokens for pods of driver"),
        ("pods", "create", "run pods as driver"),
        ("pods/exec", "get", "enter pods of driver"),
        ("serviceaccounts", "impersonate", "impersonate, without a node, driver"),
    ],
)
def test_who_can_be_an_agent_is_found(
    cluster: Cluster, doctor: Examined, resource: str, verb: str, says: str
) -> None:
    space = f"{RBAC}/namespaces/storage"
    rule = {"verbs": [verb], "apiGroups": [""], "resources": [resource]}
    kinds: dict[str, Object] = {
        "roles": {"rules": [rule]},
        "rolebindings": {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "jane"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}],
        },
    }
    for kind, value in kinds.items():
        cluster.admin.create(f"{space}/{kind}", {"metadata": {"name": "jane"}, **value})
    try:
        found = doctor()
        (told,) = found["agent identity"]
        assert told[0] == "warn"
        assert told[1].startswith(f"User jane can {says} (RoleBinding storage/jane → Role storage/")
    finally:
        for kind in kinds:
            cluster.admin.delete(f"{space}/{kind}/jane")
