"""From the audit log of a real API server to a policy, with tokens that are bound to pods."""

import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.agents.file import Bound, Operation, Plain, Verb
from noderestrict.agents.load import parse
from noderestrict.cli import main
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import ControlPlane
from tests.survey.clusters import RBAC, grants

ACCOUNT = "default/agent"
NODES = ("n1", "n2")
NODE = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": ["get", "list", "watch"]},
        {"level": "RequestResponse"},
    ],
}
RULES = [
    ([""], ["nodes", "nodes/status"], ["get", "update", "patch"]),
    ([""], ["pods", "services"], ["list"]),
    (["coordination.k8s.io"], ["leases"], ["create", "get", "update", "delete"]),
    (["authentication.k8s.io"], ["nodes"], ["impersonate:associated-node"]),
    ([""], ["nodes"], ["impersonate-on:associated-node:get"]),
    ([""], ["nodes"], ["impersonate-on:associated-node:patch"]),
]


@dataclass
class Agent:
    """An agent's pod on one node, with the token that is mounted into it."""

    url: str
    context: ssl.SSLContext
    token: str

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        user: str = "",
    ) -> Any:
        """Return the answer; raises HTTPError."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
            method=method,
        )
        if user:
            request.add_header("Impersonate-User", user)
        with urllib.request.urlopen(request, context=self.context, timeout=30) as response:
            return json.load(response)


@dataclass
class Audited:
    """A cluster with an agent on each of two nodes, and its audit log."""

    log: Path
    agents: dict[str, Agent]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("agents")
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    control_plane = ControlPlane(
        {
            "audit-policy-file": str(folder / "policy.yaml"),
            "audit-log-path": str(folder / "audit.log"),
        }
    )
    try:
        admin = control_plane.admin
        namespace_ready(admin)
        role, binding = grants(ACCOUNT, RULES)
        for value in (role, binding):
            admin.create(f"/apis/{RBAC}/v1/{value['kind'].lower()}s", value)
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        admin.create(accounts, {"metadata": {"name": "agent"}})
        agents = {}
        url = admin.kubeconfig()["clusters"][0]["cluster"]["server"]
        context = ssl.create_default_context(cadata=control_plane.ca.certificate.decode())
        for node in NODES:
            admin.create(NODE, {"metadata": {"name": node}})
            pod = admin.create(
                "/api/v1/namespaces/default/pods",
                {
                    "metadata": {"name": f"agent-{node}"},
                    "spec": {
                        "nodeName": node,
                        "serviceAccountName": "agent",
                        "automountServiceAccountToken": False,
                        "containers": [{"name": "c", "image": "agent"}],
                    },
                },
            )
            bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"],
                     "uid": pod["metadata"]["uid"]}  # fmt: skip
            token = admin.create(
                f"{accounts}/agent/token",
                {
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {"boundObjectRef": bound},
                },
            )
            agents[node] = Agent(url, context, token["status"]["token"])
        yield Audited(folder / "audit.log", agents)
    finally:
        control_plane.stop()


def work(agent: Agent, node: str) -> None:
    """Do what an agent does on its node."""
    own = f"{NODE}/{node}"
    agent.send("GET", own)
    note = {"metadata": {"annotations": {"x.example.com/a": node}}}
    agent.send("PATCH", own, note, MERGE)
    agent.send("PATCH", own, {"metadata": {"annotations": {"x.example.com/b": "1"}}}, STRATEGIC)
    applied = {"apiVersion": "v1", "kind": "Node",
               "metadata": {"name": node, "annotations": {"x.example.com/c": "1"}}}  # fmt: skip
    agent.send("PATCH", f"{own}?fieldManager=agent", applied, APPLY)
    value = agent.send("GET", own)
    value["metadata"]["labels"] = {**(value["metadata"].get("labels") or {}), "example.com/l": "1"}
    agent.send("PUT", own, value)
    condition = {"type": "KernelDeadlock", "status": "False", "reason": "r", "message": "m"}
    agent.send("PATCH", f"{own}/status", {"status": {"conditions": [condition]}}, STRATEGIC)
    lease = {"metadata": {"name": f"agent-{node}"}, "spec": {"holderIdentity": node}}
    lease = agent.send("POST", LEASES, lease)
    lease["spec"]["leaseDurationSeconds"] = 40
    agent.send("PUT", f"{LEASES}/agent-{node}", lease)
    agent.send("DELETE", f"{LEASES}/agent-{node}")
    selector = urllib.parse.quote(f"spec.nodeName={node}")
    agent.send("GET", f"/api/v1/pods?fieldSelector={selector}")
    agent.send("GET", "/api/v1/services")


def test_what_agents_did_becomes_a_policy_that_refuses_what_they_did_not(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            audited.agents["n2"].send("GET", f"{NODE}/n2")
            break
        except urllib.error.HTTPError:
            assert time.monotonic() < end
            time.sleep(0.2)
    for node, agent in audited.agents.items():
        work(agent, node)
    as_node = audited.agents["n1"].send(
        "PATCH", f"{NODE}/n1", {"metadata": {"annotations": {"as": "node"}}}, MERGE,
        "system:node:n1",
    )  # fmt: skip
    assert as_node["metadata"]["annotations"]["as"] == "node"

    assert main(["agents", "learn", "--audit-log", str(audited.log), "--user", ACCOUNT]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("not explained: agent: services: list: ")
    assert err.count("\n") == 1
    (policy,) = parse(out.encode(), "learned").agents
    assert {
        write.resources[0]: (write.operations, write.relation, write.fields)
        for write in policy.write
    } == {
        "nodes": (
            (Operation.UPDATE,),
            Plain.OWN_NODE,
            ('metadata.annotations["x.example.com/*"]', 'metadata.labels["example.com/l"]'),
        ),
        "nodes/status": (
            (Operation.UPDATE,),
            Plain.OWN_NODE,
            ("status.conditions[type=KernelDeadlock]",),
        ),
        "leases": (
            (Operation.CREATE, Operation.UPDATE, Operation.DELETE),
            Bound(name="agent-{node}"),
            ("spec.leaseDurationSeconds",),
        ),
    }
    assert policy.read is not None
    assert {read.resources[0]: (read.verbs, read.relation) for read in policy.read} == {
        "nodes": ((Verb.GET,), Plain.OWN_NODE),
        "pods": ((Verb.LIST,), Plain.OWN_PODS),
    }
    assert "1 request was made as its node" in out

    stolen = audited.agents["n1"]
    stolen.send("PATCH", f"{NODE}/n2", {"spec": {"unschedulable": True}}, MERGE)
    stolen.send("PATCH", f"{NODE}/n1", {"spec": {"unschedulable": True}}, MERGE)
    stolen.send("GET", "/api/v1/pods")
    file = tmp_path / "policy.yaml"
    file.write_text(out)
    arguments = ["--agents", str(file), "--output", "json"]
    assert main(["replay", "--audit-log", str(audited.log), *arguments]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    of_agents = [one for one in found if one.get("agent")]
    assert {one["decision"] for one in of_agents} == {"allowed", "denied"}
    assert [one["rule"] for one in of_agents if one["decision"] == "denied"] == [
        "agents/agent/unnamed-read",
        "agents/agent/unnamed-read",
        "agents/agent/own-node",
        "agents/agent/fields",
        "agents/agent/read",
    ]
    (impersonated,) = [one for one in found if one.get("impersonator")]
    assert impersonated["impersonator"] == "system:serviceaccount:default:agent"
    assert (impersonated["node"], impersonated["decision"]) == ("n1", "allowed")
