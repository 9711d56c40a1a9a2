"""The policies of agents on a real API server, with no process of ours running."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.agents.load import parse
from noderestrict.cli.agent_files import read_agents
from noderestrict.render.agent_policies import Modes, policies
from noderestrict.render.registration import cluster_role_binding
from tests.e2e.control_plane import APIError, Client, ControlPlane, Object
from tests.e2e.test_agents import (
    CORE,
    LEGACY,
    PODS,
    POLICY,
    RBAC,
    STRATEGIC,
    Agents,
    TokenClient,
    configmap,
    merge,
    prepare,
    reference,
    refusal,
    until,
    write_attacks,
)

ROOT = Path(__file__).parents[2]
READY = sorted((ROOT / "manifests" / "agents").glob("*.yaml"))
CASES = ROOT / "tests" / "agents" / "cases"
ADMISSION = "/apis/admissionregistration.k8s.io/v1/validatingadmission"
MERGE = "application/merge-patch+json"
BUILT_IN = ("", "apps", "resource.k8s.io")
#: What takes a look-up of the pod.
LOOKED_UP = ("kured#60: drain all nodes but this one: evict",)
#: What an API server leaves out of an update: the spec, in one of the status.
LEFT_OUT = ("change a network policy",)
#: What an API server refuses before it asks any policy.
IMMUTABLE = ("move devices here",)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Agents]:
    running = Agents(ControlPlane())
    try:
        admin = running.admin
        prepare(admin)
        held = [
            *parse(POLICY.encode(), "agents.yaml").agents,
            *read_agents([str(file) for file in READY]).all,
        ]
        # Those that are ready only audit.
        modes = Modes(by_rule={f"agents/{agent.name}": "deny" for agent in held})
        for value in policies(held, modes):
            kind = value["kind"].removeprefix("ValidatingAdmission").lower()
            path = {"policy": "policies", "policybinding": "policybindings"}[kind]
            admin.create(f"{ADMISSION}{path}", value)
        for group in ("system:serviceaccounts", "system:ovn-nodes"):
            subject = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group}
            binding = cluster_role_binding(subject)
            binding["metadata"]["name"] = group
            binding["roleRef"]["name"] = "cluster-admin"
            admin.create(f"{RBAC}/clusterrolebindings", binding)
        agent = running.agent(running.pod("driver-1", "n1", "storage", "driver"))
        probe = f"{CORE}/default/configmaps?dryRun=All"
        until(lambda: refusal(lambda: agent.create(probe, configmap("probe"))))
        yield running
    finally:
        running.control_plane.stop()


@pytest.fixture(scope="module")
def agent(cluster: Agents) -> TokenClient:
    return cluster.agent(cluster.admin.get(f"{CORE}/storage/pods/driver-1"))


def test_attacks_of_public_reports_are_refused(cluster: Agents, agent: TokenClient) -> None:
    attacks = write_attacks(cluster, agent)
    looked_up = {name: attacks.pop(name) for name in ("exec", "evict pod")}
    for name, attack in attacks.items():
        said = refusal(attack)
        assert "ValidatingAdmissionPolicy 'noderestrict-agent-driver'" in said, name
        assert "denied request: agents/driver/" in said, name
    for attack in looked_up.values():
        assert "agents/driver" not in refusal(attack)


def test_honest_work_is_allowed(cluster: Agents, agent: TokenClient) -> None:
    own = "/api/v1/nodes/n1"
    agent.patch(own, {"metadata": {"annotations": {"example.com/a": "b"}}})
    condition = {"type": "Driver", "status": "True"}
    for status in ("True", "False"):
        body = {"status": {"conditions": [{**condition, "status": status}]}}
        agent.request("PATCH", f"{own}/status", body, STRATEGIC)
    cluster.pod("app", "n1")
    agent.patch(f"{PODS}/app", {"metadata": {"annotations": {"a": "b"}}})
    agent.create(f"{CORE}/default/configmaps", configmap("driver-n1"))
    agent.delete(f"{CORE}/default/configmaps/driver-n1")
    agent.delete(f"{PODS}/app")


def test_only_named_fields_of_the_own_node_change(cluster: Agents, agent: TokenClient) -> None:
    own = "/api/v1/nodes/n1"
    ready = {"type": "Ready", "status": "True"}
    cluster.admin.request("PATCH", f"{own}/status", {"status": {"conditions": [ready]}}, STRATEGIC)
    for path, body in (
        (own, {"spec": {"unschedulable": True}}),
        (own, {"metadata": {"labels": {"a": ""}}}),
        (own, {"metadata": {"annotations": {"example.com": "b"}}}),
        (f"{own}/status", {"status": {"conditions": [{**ready, "status": "False"}]}}),
    ):
        said = refusal(lambda path=path, body=body: agent.request("PATCH", path, body, STRATEGIC))
        assert "agents/driver/fields: agent 'driver' may change only" in said


def test_tokens_that_are_bound_to_no_pod_are_told_apart(cluster: Agents) -> None:
    secret = cluster.admin.create(
        f"{CORE}/storage/secrets",
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bound"}},
    )
    node = cluster.admin.get("/api/v1/nodes/n1")
    for client, why in (
        (cluster.with_legacy_token("storage"), LEGACY),
        (cluster.token("storage", None), "bound to no pod"),
        (cluster.token("storage", reference(secret, "Secret")), "bound to no pod"),
        (cluster.token("storage", reference(node, "Node")), "bound to a Node"),
    ):
        body = {"metadata": {"annotations": {"example.com/a": "c"}}}
        said = refusal(merge(client, "/api/v1/nodes/n1", body))
        assert "agents/driver/node: the node of agent 'driver' is not known" in said
        assert why in said


def test_a_token_of_another_node_reaches_that_node(cluster: Agents) -> None:
    client = cluster.agent(cluster.pod("driver-2", "n2", "storage", "driver"))
    body = {"metadata": {"annotations": {"example.com/b": "c"}}}
    client.patch("/api/v1/nodes/n2", body)
    assert "agent 'driver' on node 'n2'" in refusal(merge(client, "/api/v1/nodes/n1", body))


def test_others_are_judged_as_without_policies(cluster: Agents) -> None:
    client = cluster.agent(cluster.pod("driver-1", "n1", "other", "driver"))
    for one in (client, cluster.admin):
        one.patch("/api/v1/nodes/n2", {"metadata": {"labels": {"free": one._file.name[:60]}}})
        one.patch("/api/v1/nodes/n2/status", {"status": {"capacity": {"cpu": "1"}}})
        one.create(f"{CORE}/default/configmaps?dryRun=All", configmap("driver-n2"))


# Ready policies.


class Case:
    """A case of a ready policy, as requests to a real API server."""

    def __init__(self, case: Object) -> None:
        self.id, self.allowed = case["id"], case["expect"]["allowed"]
        self.request: Object = case["review"]["request"]

    @property
    def kind(self) -> tuple[str, str]:
        resource = self.request["resource"]
        return resource["group"], resource["resource"]

    @property
    def sub(self) -> str:
        return str(self.request.get("subResource", ""))

    def path(self, name: str = "") -> str:
        group, plural = self.kind
        start = f"/apis/{group}/v1" if group else "/api/v1"
        namespace = self.request.get("namespace")
        # A request for a Namespace has a namespace: its own.
        where = f"/namespaces/{namespace}" if namespace and plural != "namespaces" else ""
        return f"{start}{where}/{plural}" + (f"/{name}" if name else "")

    def object(self, field: str) -> Object:
        """Return an object with what the API server demands besides."""
        value: Object = json.loads(json.dumps(self.request[field]))
        group, plural = self.kind
        spec = value.get("spec", {})
        if plural == "pods" and not self.sub.startswith("evict"):
            spec["containers"] = [{"name": "c", "image": "pause"}]
        elif plural == "resourceslices":
            value["apiVersion"] = "resource.k8s.io/v1"
            spec["pool"] = {"name": "p", "generation": 1, "resourceSliceCount": 1}
        elif plural == "daemonsets":
            value["apiVersion"] = "apps/v1"
            spec["selector"] = {"matchLabels": {"a": "b"}}
            spec["template"]["metadata"] = {"labels": {"a": "b"}}
        elif plural == "events":
            value["involvedObject"] = {"kind": "Pod", "namespace": "default", "name": "p"}
        elif self.sub == "token":
            value.update(apiVersion="authentication.k8s.io/v1", spec={})
        elif self.sub == "eviction":
            value["apiVersion"] = "policy/v1"
        elif group not in BUILT_IN:
            value.update(apiVersion=f"{group}/v1", kind=kind_of(plural))
        return value


def kind_of(plural: str) -> str:
    return plural.capitalize()


def cases(file: Path) -> list[Case]:
    found = map(json.loads, (CASES / f"{file.stem}.jsonl").read_text().splitlines())
    return [Case(case) for case in found if "review" in case]


def define(admin: Client, all_cases: list[Case]) -> None:
    """Serve the custom resources that cases are about."""
    for group, plural in dict.fromkeys(case.kind for case in all_cases):
        if group in BUILT_IN:
            continue
        about = [case for case in all_cases if case.kind == (group, plural)]
        has_status = any(case.sub == "status" for case in about)
        scope = "Namespaced" if any(case.request.get("namespace") for case in about) else "Cluster"
        version = {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {
                "openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                }
            },
            **({"subresources": {"status": {}}} if has_status else {}),
        }
        names = {"plural": plural, "singular": plural[:-1], "kind": kind_of(plural)}
        admin.create(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {
                    "name": f"{plural}.{group}",
                    "annotations": {"api-approved.kubernetes.io": "unapproved"},
                },
                "spec": {"group": group, "names": names, "scope": scope, "versions": [version]},
            },
        )
        until(lambda case=about[0]: answers(admin, case.path()))


def answers(client: Client, path: str) -> bool:
    try:
        client.get(path)
    except APIError:
        return False
    return True


def made(client: Client, path: str, value: Object) -> None:
    """Create an object if there is none."""
    try:
        client.create(path, value)
    except APIError as error:
        if error.code != 409:
            raise


def sender(cluster: Agents, case: Case) -> Client:
    """Return the agent that makes a request, with a token of a pod on its node."""
    user = case.request["userInfo"]
    name = user["username"]
    if not name.startswith("system:serviceaccount:"):
        return cluster.control_plane.user(name, "system:ovn-nodes")
    *_, namespace, account = name.split(":")
    metadata = {"name": namespace}
    made(
        cluster.admin,
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
    )
    value = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
    made(cluster.admin, f"{CORE}/{namespace}/serviceaccounts", value)
    (node,) = user["extra"]["authentication.kubernetes.io/node-name"]
    try:
        pod = cluster.admin.get(f"{CORE}/{namespace}/pods/agent-{node}")
    except APIError:
        pod = cluster.pod(f"agent-{node}", node, namespace, account)
    if pod["spec"]["serviceAccountName"] != account:
        cluster.admin.delete(f"{CORE}/{namespace}/pods/agent-{node}")
        pod = cluster.pod(f"agent-{node}", node, namespace, account)
    return cluster.agent(pod)


def changes(old: Any, new: Any) -> Any:
    """Return the merge patch from one value to another."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    gone: Object = {key: None for key in old if key not in new}
    return gone | {
        key: changes(old.get(key), one) for key, one in new.items() if one != old.get(key)
    }


def send(client: Client, admin: Client, case: Case) -> str:
    """Send a request as it is in a case, and return why it is refused."""
    name = case.request.get("name", "")
    path = case.path(name)
    with_sub = f"{path}/{case.sub}" if case.sub else path
    operation = case.request["operation"]
    if operation in ("UPDATE", "DELETE"):
        old = case.object("oldObject")
        if case.kind[1] != "namespaces":
            ensure(admin, path, case.path(), old)
        if operation == "DELETE":
            return refusal(lambda: client.delete(path))
        body = changes(old, case.object("object"))
        # As clients do: a condition stands for itself.
        how = MERGE if case.kind[0] not in BUILT_IN else STRATEGIC
        return refusal(lambda: client.request("PATCH", with_sub, body, how))
    if case.sub == "eviction":
        pod = {"metadata": {"name": name}, "spec": {"nodeName": f"n{name[-1]}"}}
        pod["spec"]["containers"] = [{"name": "c", "image": "pause"}]
        ensure(admin, path, case.path(), {"apiVersion": "v1", "kind": "Pod", **pod})
    elif case.sub == "token":
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        made(admin, case.path(), account)
    else:
        absent(admin, case.path(case.request["object"]["metadata"]["name"]))
    return refusal(
        lambda: client.create(with_sub if case.sub else case.path(), case.object("object"))
    )


def absent(admin: Client, path: str) -> None:
    try:
        admin.delete(path)
    except APIError as error:
        if error.code != 404:
            raise


def ensure(admin: Client, path: str, collection: str, value: Object) -> None:
    """Make an object be as it is before a request."""
    absent(admin, path)
    until(lambda: not answers(admin, path))
    created = admin.create(collection, value)
    status = value.get("status")
    if status and created.get("status") != status:
        admin.patch(f"{path}/status", {"status": status})


def test_ready_policies_refuse_attacks_and_allow_honest_work(cluster: Agents) -> None:
    all_cases = [case for file in READY for case in cases(file)]
    define(cluster.admin, all_cases)
    refused = 0
    for case in all_cases:
        said = send(sender(cluster, case), cluster.admin, case)
        if case.allowed or case.id in (*LOOKED_UP, *LEFT_OUT):
            assert said == "", case.id
        elif case.id in IMMUTABLE:
            assert "immutable" in said
        else:
            assert "denied request: agents/" in said, (case.id, said)
            refused += 1
    assert refused > 30
