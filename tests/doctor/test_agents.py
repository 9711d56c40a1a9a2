"""The checks of policies for agents: a fault planted per finding; and blind is never green."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noderestrict.agents.reads import Asked
from noderestrict.api import rbacv1
from noderestrict.authorization.decode import decode
from noderestrict.authorization.evaluate import evaluate_agent
from noderestrict.cli.doctor import agents_to_examine
from noderestrict.cluster.judge import connected
from noderestrict.doctor.check import Check
from noderestrict.doctor.checks import (
    agents_identity,
    agents_modes,
    agents_policies,
    agents_reads,
    agents_rights,
    agents_start,
    agents_tokens,
    authorizer,
)
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding, exit_code
from noderestrict.doctor.gates import NODE_IN_TOKENS as GATE
from noderestrict.doctor.installed_agents import with_installed_agents
from noderestrict.doctor.run import AGENT_CHECKS, CHECKS, examine
from noderestrict.graph.rules import Opinion
from noderestrict.policy.features import OFFLINE_MINOR
from noderestrict.policy.listers import MemoryListers
from noderestrict.rbac import grants
from noderestrict.rbac.rights import parts_of
from noderestrict.rbac.rules import Request
from noderestrict.rbac.subjects import User
from noderestrict.render.agents import read_conditions
from noderestrict.render.authorizer import authorization_configuration
from noderestrict.render.manifests import Options as Rendering
from noderestrict.render.manifests import manifests
from tests.agents.builders import agents
from tests.doctor import test_faults as faults
from tests.doctor.healthy import DEPLOYMENT, REGISTRATION, SPACE, SYSTEM, Healthy, gates, metrics
from tests.doctor.test_faults import FLAGS, Plant, assert_seen, change, expose, files, lose
from tests.verify.cluster import running

Object = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
STORAGE = "/api/v1/namespaces/storage"
ACCOUNT = f"{STORAGE}/serviceaccounts/driver"
DAEMON_SET = "/apis/apps/v1/namespaces/storage/daemonsets/driver"
POLICY = """agents:
- name: driver
  users: [{serviceAccount: storage/driver}]
  write: [{resources: [nodes/status], operations: [UPDATE], relation: own-node}]
  read: [{resources: [nodes], relation: own-node}, {resources: [pods], relation: own-pods}]
- name: reporter
  users: [{serviceAccount: storage/reporter}]
  unnamedWrites: allow
  write: [{resources: [nodes/status], operations: [UPDATE], relation: own-node}]
"""


class WithAgents(Healthy):
    """A cluster with policies for two agents, both in order.

    Attributes:
        policy: the text of the policy file.
        authorizer: where it stands: before or after RBAC; or it is absent, or away.
        authorized: the policies of the authorizer.
    """

    rendered = manifests(Rendering(agents=agents(POLICY).all, agent_files={"agents.yaml": POLICY}))

    def __init__(self) -> None:
        super().__init__()
        self.policy = self.authorized = POLICY
        self.authorizer = "before"
        self.files["authorization.yaml"] = authorization(POLICY)
        for name in ("driver", "reporter"):
            self.put(f"{STORAGE}/serviceaccounts/{name}")
            spec = {"serviceAccountName": name, "containers": [{"name": "c"}]}
            self.put(
                f"/apis/apps/v1/namespaces/storage/daemonsets/{name}",
                spec={"template": {"spec": spec}},
            )
        for name in "ab":
            self.exposed[f"{SPACE}/pods/{name}:9090/proxy/metrics"] = serving(POLICY)

    def _access(self, body: Object) -> Object:
        asked = decode(json.dumps(body).encode(), agents(self.authorized)).asked
        if asked is None or asked.agent.reads is None:
            return super()._access(body)
        if self.authorizer == "away":
            return {"allowed": False, "denied": True, "evaluationError": "connection refused"}
        opinion = evaluate_agent(asked, MemoryListers([]))
        assert isinstance(opinion, Opinion)
        denied = {"allowed": False, "denied": True, "reason": opinion.reason}
        if self.authorizer == "before" and opinion.denied:
            return denied
        if self._granted(asked):
            return {"allowed": True, "reason": "RBAC: allowed by a binding"}
        return denied if self.authorizer == "after" and opinion.denied else {"allowed": False}

    def _granted(self, asked: Asked) -> bool:
        def of(plural: str, struct: type) -> list[Any]:
            return msgspec.convert(self._items(f"{RBAC}/{plural}", {}), list[struct])  # type: ignore[valid-type]

        rbac = grants.RBAC.of(
            of("clusterroles", rbacv1.Role), of("clusterrolebindings", rbacv1.RoleBinding)
        )
        request = Request(asked.verb, asked.group, asked.resource, name=asked.name)
        groups = frozenset(("ovn-nodes",)) if asked.agent.prefix else frozenset[str]()
        return rbac.allows(User(asked.user.name, groups), request) is not None


def authorization(policy: str, **changed: Any) -> Object:
    """Return the AuthorizationConfiguration for the reads of a policy."""
    conditions = read_conditions(agents(policy).all, OFFLINE_MINOR)
    value = authorization_configuration("/w", agents=conditions)
    value["authorizers"][0]["webhook"].update(changed)
    return value


def reordered(*first: Object) -> Object:
    """Return the AuthorizationConfiguration with other authorizers before ours."""
    value = authorization(POLICY)
    value["authorizers"] = [*first, *(one for one in value["authorizers"] if one not in first)]
    return value


def stand(authorizer: str, *others: Plant) -> Plant:
    """Let the authorizer stand elsewhere, with a read that RBAC allows."""

    def plant(server: Healthy) -> None:
        vars(server)["authorizer"] = authorizer
        for one in others:
            one(server)

    return plant


@cache
def serving(policy: str, mode: str = "enforce") -> bytes:
    """Return the metrics of a server with a policy."""
    return metrics(mode=mode, held=agents(policy))


def serve(policy: str, mode: str = "enforce") -> Plant:
    return expose("a", serving(policy, mode))


def old_server(version: str, *others: Plant, **gates_of: bool) -> Plant:
    """Let the API server have a version, and feature gates."""

    def plant(server: Healthy) -> None:
        server.version = version
        server.exposed["/metrics"] = gates(gates_of)
        for one in others:
            one(server)

    return plant


def token_secret(used_by: str = "") -> Plant:
    """Add a Secret with a token of an agent."""

    def plant(server: Healthy) -> None:
        secret = server.put(f"{STORAGE}/secrets/old", type="kubernetes.io/service-account-token")
        secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "driver"}
        volume = {"name": "v", "secret": {"secretName": used_by}}
        change(DAEMON_SET, "spec", "template", "spec", "volumes", to=[volume])(server)

    return plant


def role(name: str, *rights: str, namespace: str = "", names: Sequence[str] = ()) -> Plant:
    """Bind a role to a subject.

    Args:
        name: KIND NAME of the subject; NAMESPACE/NAME of a service account.
        rights: VERB RESOURCE[.GROUP][/SUBRESOURCE].
        namespace: in which they hold, "" for all.
        names: of the objects.
    """
    kind, _, who = name.partition(" ")
    space, _, account = who.rpartition("/")
    subject = {"kind": kind, "name": account if kind == "ServiceAccount" else who}
    if kind == "ServiceAccount":
        subject["namespace"] = space
    rules = []
    for right in rights:
        verb, _, text = right.partition(" ")
        group, resource, sub = parts_of(text)
        whole = f"{resource}/{sub}" if sub else resource
        rules.append({"verbs": [verb], "apiGroups": [group], "resources": [whole],
                      "resourceNames": list(names)})  # fmt: skip
    return bind("given", subject, rules, namespace)


def bind(
    name: str, subject: Object, rules: Sequence[Object], namespace: str = "", role_name: str = ""
) -> Plant:
    def plant(server: Healthy) -> None:
        called = role_name or name
        server.put(f"{RBAC}/clusterroles/{called}", rules=list(rules))
        where = f"namespaces/{namespace}/rolebindings" if namespace else "clusterrolebindings"
        server.put(
            f"{RBAC}/{where}/{name}",
            roleRef={"kind": "ClusterRole", "name": called}, subjects=[subject],
        )  # fmt: skip

    return plant


def aggregate(server: Healthy) -> None:
    """Let another API server answer for a group, to which an agent may write."""
    path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.volumes.example.com"
    service = {"namespace": "volumes", "name": "api"}
    server.put(path, spec={"group": "volumes.example.com", "service": service})
    role(DRIVER, "update volumes.volumes.example.com")(server)


def run_as(name: str, owner: str = "") -> Plant:
    """Let a pod run as an account, of a DaemonSet or of nothing."""

    def plant(server: Healthy) -> None:
        pod = server.put(f"{STORAGE}/pods/one", spec={"nodeName": "n1", "serviceAccountName": name})
        if owner:
            pod["metadata"]["ownerReferences"] = [
                {"kind": "DaemonSet", "name": owner, "controller": True}
            ]

    return plant


def write_policy(text: str) -> Plant:
    return lambda server: setattr(server, "policy", text)


def webhook(name: str, *steps: str | int, to: Any) -> Plant:
    """Change a value of an agents' webhook."""

    def plant(server: Healthy) -> None:
        names = [one["name"] for one in server.objects[REGISTRATION]["webhooks"]]
        change(REGISTRATION, "webhooks", names.index(name), *steps, to=to)(server)

    return plant


def lose_webhooks(*names: str) -> Plant:
    def plant(server: Healthy) -> None:
        found = server.objects[REGISTRATION]["webhooks"]
        server.objects[REGISTRATION]["webhooks"] = [
            one for one in found if one["name"] not in names
        ]

    return plant


ALL, NAMED = "all.agents.noderestrict.io", "named.agents.noderestrict.io"


def authorization_of(minor: int) -> Object:
    """Return the AuthorizationConfiguration for an API server of another version."""
    conditions = read_conditions(agents(POLICY).all, minor)
    return authorization_configuration("/w", agents=conditions)


OWNED = POLICY.replace(
    "write: [", "write: [{resources: [x], apiGroups: [a.b], operations: [UPDATE], "
    "relation: {owner: node}}, ", 1,
)  # fmt: skip


def on_the_way(policy: str, *others: Plant) -> Plant:
    """Let an agent with a policy be the network plugin."""

    def plant(server: Healthy) -> None:
        write_policy(policy)(server)
        spec = server.objects[DAEMON_SET]["spec"]["template"]["spec"]
        spec["hostNetwork"] = True
        spec["containers"][0]["securityContext"] = {"privileged": True}
        for one in others:
            one(server)

    return plant


API_SERVER = f"{SYSTEM}/pods/kube-apiserver-cp"
DRIVER = "ServiceAccount storage/driver"
CLAIMS = [
    f"impersonate userextras.authentication.k8s.io/authentication.kubernetes.io/{key}"
    for key in ("pod-name", "pod-uid")
]
ONLY_TOKEN = POLICY.replace("- name: driver", "- name: driver\n  node: [token]")
AUDITED = POLICY.replace("- name: driver", "- name: driver\n  mode: audit")
ONE_MORE = """- name: more
  users: [{serviceAccount: storage/more}]
"""
EXTRA_USER = POLICY.replace("/driver}]", "/driver}, {serviceAccount: storage/old}]")
FAULTS: dict[str, dict[str, tuple[Plant, str, str]]] = {
    "agent accounts": {
        "no account": (
            lambda server: [lose(ACCOUNT)(server), lose(DAEMON_SET)(server)], "fail",
            "service account storage/driver does not exist, so the policy holds nobody; "
            "DaemonSets there run: storage/reporter as storage/reporter",
        ),
        "another account": (
            change(DAEMON_SET, "spec", "template", "spec", "serviceAccountName", to="plugin"),
            "fail", "no DaemonSet runs as storage/driver, so the policy holds nobody; "
            "DaemonSets there run: storage/driver as storage/plugin",
        ),
        "one of two": (write_policy(EXTRA_USER), "warn",
                       "service account storage/old does not exist; another account"),
        "shared": (run_as("driver"), "warn", "held to their node as well: storage/one"),
    },
    "agent tokens": {
        "old API server": (old_server("v1.28.2", write_policy(ONLY_TOKEN)), "fail",
                           "takes the node from the token alone"),
        "gate off": (old_server("v1.31.2", write_policy(ONLY_TOKEN), **{GATE: False}), "fail",
                     f"without feature gate {GATE}, on since 1.30: the node is never known"),
        "gate hidden": (old_server("v1.31.2", write_policy(ONLY_TOKEN)), "unknown", GATE),
        "a Secret": (token_secret(), "warn", "Secret storage/old has a token of storage/driver"),
        "a Secret in use": (token_secret("old"), "fail", "DaemonSet storage/driver gets a token"),
        "no token": (change(DAEMON_SET, "spec", "template", "spec", "automountServiceAccountToken",
                            to=False), "warn", "mounts no token of storage/driver"),
    },
    "agent modes": {
        "no policy": (serve(POLICY.partition("- name: reporter")[0]), "fail",
                      "a: it has no policy of reporter, and allows them everything"),
        "another policy": (serve(POLICY.replace("own-pods", "any")), "fail",
                           "a: it has another policy of driver"),
        "one more": (serve(POLICY + ONE_MORE), "warn", "a: it also holds more"),
        "weaker": (serve(POLICY, "audit"), "fail",
                   "a: agent 'driver': all its rules run in mode audit instead of enforce"),
        "meant to be weak": (
            lambda server: [write_policy(AUDITED)(server), serve(AUDITED)(server),
                            expose("b", serving(AUDITED))(server)],
            "warn", "agent 'driver': its policy has mode audit, and refuses nothing"),
        "hidden": (expose("a", b"noderestrict_agent_policy_info{a=\n"), "unknown", "not visible"),
        "no server": (lambda server: [lose(f"{SPACE}/pods/a")(server),
                                      lose(f"{SPACE}/pods/b")(server)], "unknown", "no server"),
    },
    "agent rights": {
        "grown beyond any policy": (
            role(DRIVER, "impersonate serviceaccounts"), "fail",
            "agent 'driver': RBAC lets it impersonate serviceaccounts, which no policy can hold"),
        "admission": (
            role(DRIVER, "delete validatingwebhookconfigurations.admissionregistration.k8s.io"),
            "fail", "which no policy can hold: Turns off what holds others"),
        "everything": (role(DRIVER, "* *.*"), "fail", "RBAC lets it do everything"),
        "grown beyond the entries": (
            role("ServiceAccount storage/reporter", "update secrets", "patch nodes/status"), "warn",
            "agent 'reporter': RBAC lets it update secrets, which its policy does not name"),
        "reads": (role("ServiceAccount storage/reporter", "list secrets"), "warn",
                  "does not hold what RBAC lets it do on any node: list secrets"),
        "elsewhere": (aggregate, "warn", "another API server answers"),
    },
    "agent identity": {
        "pods": (role("User jane", "create pods", namespace="storage"), "warn",
                 "User jane can run pods as driver, reporter (RoleBinding storage/given → "
                 "ClusterRole given): it can be an agent of any node"),
        "workloads": (role("Group devs", "patch cronjobs.batch"), "warn",
                      "Group devs can run pods as driver, reporter"),
        "tokens": (role("ServiceAccount ci/x", "create serviceaccounts/token", names=["driver"]),
                   "warn", "ServiceAccount ci/x can make tokens for pods of driver ("),
        "exec": (role("User jane", "create pods/exec"), "warn", "can enter pods of driver"),
        "an agent": (role("ServiceAccount kube-system/kube-proxy", "create pods"), "fail",
                     "can run pods as driver, reporter (ClusterRoleBinding given → ClusterRole "
                     "given): it can be an agent of any node, as can whoever takes a node"),
        "everybody": (role("Group system:serviceaccounts", "create pods"), "fail", "takes a node"),
        "its namespace": (role("Group system:serviceaccounts:storage", "create jobs.batch"), "fail",
                          "takes a node"),
        "kubelets": (role("Group system:nodes", "create jobs.batch"), "fail", "takes a node"),
        "impersonation": (role("User jane", "impersonate serviceaccounts", *CLAIMS), "warn",
                          "User jane can impersonate driver, reporter"),
        "half a claim": (role("User jane", "impersonate serviceaccounts", CLAIMS[0]), "warn",
                         "User jane can impersonate, without a node, driver, reporter"),
        "no claim": (role("User jane", "impersonate serviceaccounts"), "warn",
                     "can impersonate, without a node, driver, reporter (ClusterRoleBinding given "
                     "→ ClusterRole given): it can do what is held to no node"),
        "an administrator on nodes": (role("ServiceAccount kube-system/kube-proxy", "* *.*"),
                                      "fail", "can do everything, and so run pods as driver"),
    },
    "agent start": {
        "waits": (on_the_way(OWNED), "warn",
                  "agent 'driver': the network depends on it, and these writes wait for a server "
                  "that is reached through it: UPDATE x.a.b"),
        "old API server": (on_the_way(POLICY, old_server("v1.28.0")), "warn",
                           "UPDATE nodes/status"),
        "gate hidden": (on_the_way(POLICY, old_server("v1.30.0")), "unknown", f"gate {GATE}"),
    },
    "agent reads": {
        "after RBAC": (stand("after", role(DRIVER, "list pods")), "fail",
                       "its policy refuses to list pods, but RBAC: allowed by a binding allows it"),
        "absent": (stand("absent"), "fail",
                   "its policy refuses to get nodes/noderestrict-doctor, but nobody denies it"),
        "away": (stand("away"), "fail", "gets no answer about its reads, and denies them: connec"),
        "other policies": (
            lambda server: [vars(server).update(authorized=POLICY.replace("own-node", "any")),
                            role(DRIVER, "get nodes")(server)],
            "fail", "its policy refuses to get nodes/noderestrict-doctor, but RBAC"),
        "no file of authorizers": (change(API_SERVER, *FLAGS, to=["kube-apiserver"]), "fail",
                                   "kube-apiserver-cp: without --authorization-config, nobody"),
        "old API server": (old_server("v1.29.2"), "fail", "nobody holds the reads"),
        "no selectors": (old_server("v1.31.2", AuthorizeWithSelectors=False), "fail",
                         "read[1].verbs: the API server tells authorizers no selectors"),
        "selectors hidden": (
            lambda server: [old_server("v1.31.2")(server),
                            files("authorization.yaml", authorization_of(31))(server)],
            "unknown", "feature gate AuthorizeWithSelectors is on"),
        "not deny": (files("authorization.yaml", authorization(POLICY, failurePolicy="NoOpinion")),
                     "fail", "noderestrict-agents: failurePolicy is 'NoOpinion'"),
        "other conditions": (
            files("authorization.yaml", authorization(POLICY.replace("own-node", "any"))), "fail",
            "noderestrict-agents: matchConditions are not those that are rendered"),
        "RBAC first": (files("authorization.yaml", reordered({"type": "RBAC", "name": "rbac"})),
                       "fail", "rbac (RBAC) precedes noderestrict-agents, and allows first"),
        "another webhook first": (
            files("authorization.yaml", reordered({"type": "Webhook", "name": "x"})), "warn",
            "x (Webhook) precedes noderestrict-agents, and may allow first"),
        "no entry": (files("authorization.yaml", authorization_configuration("/w")), "fail",
                     "no authorizer asks about agents"),
        "no file": (lambda server: server.files.pop("authorization.yaml"), "unknown",
                    "is in its AuthorizationConfiguration alone"),
        "not enforced": (write_policy(POLICY.replace("- name: driver",
                                                     "- name: driver\n  mode: audit")),
                         "unknown", "its reads are not enforced"),
    },
    "agent registration": {
        "all missing": (lose_webhooks(ALL, NAMED), "fail", f"{ALL}, {NAMED}: missing"),
        "one missing": (lose_webhooks(NAMED), "fail", f"{NAMED}: missing"),
        "fewer rules": (webhook(ALL, "rules", 0, "resources", to=["*"]), "fail",
                        f"{ALL}: rules"),
        "others": (webhook(ALL, "matchConditions", 0, "expression", to="false"), "fail",
                   "expression"),
        "open": (webhook(NAMED, "failurePolicy", to="Ignore"), "fail", "failurePolicy"),
        "confined": (webhook(ALL, "namespaceSelector", to={"matchLabels": {"a": "b"}}), "fail",
                     "namespaceSelector"),
        "no registration": (lose(REGISTRATION), "unknown", "not found"),
    },
}  # fmt: skip
EVERY = [
    pytest.param(check, fault, id=f"{check}: {name}")
    for check, faults in FAULTS.items()
    for name, fault in faults.items()
]


async def examined(
    server: WithAgents,
    folder: Path,
    checks: tuple[Check, ...] = AGENT_CHECKS,
    *,
    given: bool = True,
    expected: str = "enforce",
) -> list[tuple[str, Finding]]:
    """Return the findings, with the policy file as the operator gives it, or without it."""
    await asyncio.to_thread(server.flags, folder)
    there = folder / "authorization.yaml" if "authorization.yaml" in server.files else None
    options = Options(expected_mode=expected, authorization_config=there)
    if given:
        file = folder / "agents.yaml"
        await asyncio.to_thread(file.write_text, server.policy)
        options = replace(options, agents=agents_to_examine([str(file)]))
    async with running(server, folder) as kubeconfig, connected(kubeconfig, None) as connection:
        options = await with_installed_agents(connection, options)
        return [(check.name, one) async for check, one in examine(connection, options, checks)]


def test_each_check_of_agents_has_a_fault_of_its_own() -> None:
    assert set(FAULTS) == {check.name for check in AGENT_CHECKS}


async def test_agents_in_order_are_green_for_every_check(tmp_path: Path) -> None:
    found = await examined(WithAgents(), tmp_path, (*CHECKS, *AGENT_CHECKS))
    assert [(check, one) for check, one in found if one.status != "pass"] == []
    assert {check.name for check in AGENT_CHECKS} <= {check for check, _ in found}


@pytest.mark.parametrize(("check", "fault"), EVERY)
async def test_a_planted_fault_of_an_agent_is_seen_with_what_mends_it(
    tmp_path: Path, check: str, fault: tuple[Plant, str, str]
) -> None:
    plant, status, says = fault
    server = WithAgents()
    plant(server)
    (wanted,) = [one for one in AGENT_CHECKS if one.name == check]
    found = [one for _, one in await examined(server, tmp_path, (wanted,))]
    assert_seen(found, status, says)


async def test_pods_of_a_daemon_set_that_now_has_another_account_still_count(
    tmp_path: Path,
) -> None:
    server = WithAgents()
    change(DAEMON_SET, "spec", "template", "spec", "serviceAccountName", to="new")(server)
    run_as("driver", "driver")(server)
    assert {one.status for _, one in await examined(server, tmp_path)} == {"pass"}


@pytest.mark.parametrize("check", AGENT_CHECKS, ids=[one.name for one in AGENT_CHECKS])
async def test_a_check_of_agents_that_a_source_is_hidden_from_is_not_green(
    tmp_path: Path, check: Check
) -> None:
    server = WithAgents()
    await examined(server, tmp_path, (check,))
    green = []
    for source in sorted(server.asked - HELPFUL):
        blind = WithAgents()
        blind.refuses = source.__eq__
        found = await examined(blind, tmp_path, (check,))
        if exit_code(one for _, one in found) != 2:
            green.append(source)
        assert all(one.status == "pass" or one.command for _, one in found), found
    assert green == []


#: Asked for what it adds.
HELPFUL = {("GET", "/version")}


# Policies that the servers have, without a file.

POLICIES = (agents_policies.CHECK,)
CONFIG_MAP = f"{SPACE}/configmaps/noderestrict-agents"


async def test_without_their_files_agents_are_examined_by_the_policies_of_the_servers(
    tmp_path: Path,
) -> None:
    found = await examined(WithAgents(), tmp_path, (*CHECKS, *AGENT_CHECKS), given=False)
    assert [(check, one) for check, one in found if one.status != "pass"] == []
    assert {check.name for check in AGENT_CHECKS} <= {check for check, _ in found}
    (told,) = [one.message for check, one in found if check == "agent policies"]
    assert told.startswith("ConfigMap noderestrict/noderestrict-agents holds driver, reporter;")


async def test_without_their_files_a_fault_of_an_agent_is_seen(tmp_path: Path) -> None:
    server = WithAgents()
    lose_webhooks(NAMED)(server)
    found = [one for _, one in await examined(server, tmp_path, given=False)]
    assert_seen(found, "fail", f"{NAMED}: missing")
    (again,) = {one.command for one in found if one.status == "fail"}
    saving, *_ = again.splitlines()
    assert saving.endswith(r"-o 'jsonpath={.data.agents\.yaml}' > agents.yaml")


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (lose(CONFIG_MAP), "ConfigMap noderestrict/noderestrict-agents does not exist"),
        (change(CONFIG_MAP, "data", to={"b": ""}), "has no agents.yaml"),
        (change(CONFIG_MAP, "data", "agents.yaml", to="agents: 1"), "agents.yaml: agents: "),
        (change(DEPLOYMENT, "spec", "template", "spec", "volumes", to=[]), "is in no ConfigMap"),
    ],
)
async def test_policies_that_are_not_seen_are_neither_green_nor_a_difference(
    tmp_path: Path, plant: Plant, says: str
) -> None:
    server = WithAgents()
    plant(server)
    found = [one for _, one in await examined(server, tmp_path, POLICIES, given=False)]
    assert_seen(found, "unknown", says)
    if "volumes" not in says:
        checks = tuple(one for one in CHECKS if one.name in ("manifests", "registration"))
        others = await examined(server, tmp_path, checks, given=False)
        hidden = [one for _, one in others if "agents" in one.message and one.status != "pass"]
        assert ("is in no ConfigMap" in says) == bool(hidden), hidden


async def test_a_config_map_that_may_not_be_read_is_not_green(tmp_path: Path) -> None:
    server = WithAgents()
    server.refuses = ("GET", CONFIG_MAP).__eq__
    found = await examined(server, tmp_path, POLICIES, given=False)
    assert [one.status for _, one in found] == ["unknown"]


async def test_files_other_than_those_of_the_servers_are_told(tmp_path: Path) -> None:
    server = WithAgents()
    server.policy = POLICY.replace("own-pods", "any")
    found = [one for _, one in await examined(server, tmp_path, POLICIES)]
    assert_seen(found, "fail", "has other policies than the files, for driver")
    server.policy = POLICY.replace("agents:", "# Only a comment.\nagents:")
    assert [one.status for _, one in await examined(server, tmp_path, POLICIES)] == ["pass"]


async def test_servers_without_the_policies_of_the_files_are_told(tmp_path: Path) -> None:
    server = WithAgents()
    container = ("spec", "template", "spec", "containers", 0)
    arguments = server.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["args"]
    others = [one for one in arguments if not one.startswith("--agents")]
    change(DEPLOYMENT, *container, "args", to=others)(server)
    found = [one for _, one in await examined(server, tmp_path, POLICIES)]
    assert_seen(found, "fail", "deployment noderestrict has no policies of agents")
    # What a file of settings names is not visible here; its metrics tell.
    change(DEPLOYMENT, *container, "args", to=[*others, "--config=/c.yaml"])(server)
    assert [one.status for _, one in await examined(server, tmp_path, POLICIES)] == ["pass"]


@pytest.mark.parametrize(
    "arguments",
    [["--agents=/p/a.yaml"], ["--agents", "/p/a.yaml"], ["--agents", "/p/a.yaml", "--mode=audit"]],
)
async def test_policies_are_found_however_they_are_named_and_mounted(
    tmp_path: Path, arguments: list[str]
) -> None:
    server = WithAgents()
    spec = server.objects[DEPLOYMENT]["spec"]["template"]["spec"]
    spec["containers"][0]["args"] = ["serve", *arguments]
    items = [{"key": "agents.yaml", "path": "a.yaml"}]
    spec["volumes"] = [{"name": "p", "configMap": {"name": "noderestrict-agents", "items": items}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "p", "mountPath": "/p"}]
    found = await examined(server, tmp_path, POLICIES, given=False)
    assert [one.status for _, one in found] == ["pass"], found
    spec["containers"][0]["args"] = ["serve"]
    spec["containers"][0]["env"] = [{"name": "NODERESTRICT_AGENTS", "value": "/p/a.yaml"}]
    found = await examined(server, tmp_path, POLICIES, given=False)
    assert [one.status for _, one in found] == ["pass"], found
    spec["containers"][0]["volumeMounts"] = [
        {"name": "p", "mountPath": "/p/a.yaml", "subPath": "a.yaml"}
    ]
    found = await examined(server, tmp_path, POLICIES, given=False)
    assert [one.status for _, one in found] == ["pass"], found


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (old_server("v1.31.2", **{GATE: True}), "since tokens tell it"),
        (old_server("v1.31.2", **{GATE: False}), "which is looked up"),
        (old_server("v1.31.2"), "which is looked up"),
        (old_server("v1.28.2"), "which is looked up"),
        (old_server("v1.32.0"), "since tokens tell it"),
    ],
)
async def test_a_policy_that_looks_up_the_pod_knows_the_node_on_every_api_server(
    tmp_path: Path, plant: Plant, says: str
) -> None:
    server = WithAgents()
    plant(server)
    found = [one for _, one in await examined(server, tmp_path, (agents_tokens.CHECK,))]
    assert [one.status for one in found] == ["pass", "pass"]
    assert all(says in one.message for one in found), found


async def test_policies_of_a_server_that_cannot_be_seen_from_here_are_not_taken_for_none(
    tmp_path: Path,
) -> None:
    server = WithAgents()
    for name in "ab":
        (container,) = server.objects[f"{SPACE}/pods/{name}"]["spec"]["containers"]
        container["args"] = ["serve", "--metrics-address=127.0.0.1:9090"]
    found = [one for _, one in await examined(server, tmp_path, (agents_modes.CHECK,))]
    assert [one.status for one in found] == ["unknown", "unknown"]
    assert all("not visible" in one.message for one in found), found
    assert all("--metrics 127.0.0.1:9090" in str(one.command) for one in found), found


@pytest.mark.parametrize(
    ("expected", "statuses"), [("enforce", {"pass", "fail"}), ("audit", {"fail", "pass"})]
)
async def test_the_modes_of_agents_are_expected_as_those_of_rules(
    tmp_path: Path, expected: str, statuses: set[str]
) -> None:
    server = WithAgents()
    serve(POLICY, "audit")(server)
    found = await examined(server, tmp_path, (agents_modes.CHECK,), expected=expected)
    by_server = {one.message[0]: one.status for _, one in found}
    assert by_server["a"] == ("fail" if expected == "enforce" else "pass")
    assert by_server["b"] == ("pass" if expected == "enforce" else "fail")
    assert set(by_server.values()) == statuses


# Who is no finding.


@pytest.mark.parametrize(
    "plant",
    [
        role("User jane", "create pods", namespace="default"),
        role("User jane", "create serviceaccounts/token", names=["other"]),
        role("User jane", "impersonate serviceaccounts", *CLAIMS, names=["other"]),
        role("User jane", "impersonate users", "impersonate groups"),
        role("User jane", "list pods", "delete pods", "get jobs.batch"),
        # Administrators, kubelets, whom the rules for nodes hold, and agents with a policy.
        role("User jane", "* *.*"),
        role("Group system:nodes", "create pods", "create serviceaccounts/token"),
        role(DRIVER, "create pods", "create serviceaccounts/token"),
        bind(
            "system:controller:job-controller",
            {"kind": "ServiceAccount", "namespace": "kube-system", "name": "job-controller"},
            [{"verbs": ["create"], "apiGroups": [""], "resources": ["pods"]}],
        ),
        bind(
            "system:kube-controller-manager",
            {"kind": "User", "name": "system:kube-controller-manager"},
            [{"verbs": ["create"], "apiGroups": [""], "resources": ["serviceaccounts/token"]}],
        ),
    ],
)
async def test_nobody_is_suspected_who_cannot_be_an_agent(tmp_path: Path, plant: Plant) -> None:
    server = WithAgents()
    plant(server)
    found = [one for _, one in await examined(server, tmp_path, (agents_identity.CHECK,))]
    assert [one.status for one in found] == ["pass"], found


@pytest.mark.parametrize(
    ("subject", "binding"),
    [
        ({"kind": "ServiceAccount", "namespace": "default", "name": "x"}, "system:controller:x"),
        ({"kind": "ServiceAccount", "namespace": "kube-system", "name": "x"}, "system:other"),
        ({"kind": "User", "name": "jane"}, "jane"),
    ],
)
async def test_the_names_of_bindings_alone_make_nobody_a_controller(
    tmp_path: Path, subject: Object, binding: str
) -> None:
    server = WithAgents()
    rule = {"verbs": ["create"], "apiGroups": [""], "resources": ["pods"]}
    bind(binding, subject, [rule])(server)
    found = [one for _, one in await examined(server, tmp_path, (agents_identity.CHECK,))]
    assert [one.status for one in found] == ["warn"], found


@pytest.mark.parametrize(
    "plant",
    [
        # The policy refuses, or ties to the node, all of that.
        role(DRIVER, "patch nodes", "patch nodes/status", "delete pods", "list pods"),
        role(DRIVER, "create secrets", "update daemonsets.apps", namespace="storage"),
        role("ServiceAccount storage/reporter", "update nodes/status", "patch nodes/status"),
        role("ServiceAccount storage/other", "* *.*"),
    ],
)
async def test_rights_that_a_policy_holds_are_no_finding(tmp_path: Path, plant: Plant) -> None:
    server = WithAgents()
    plant(server)
    found = [one for _, one in await examined(server, tmp_path, (agents_rights.CHECK,))]
    assert [one.status for one in found] == ["pass", "pass"], found


PREFIXED = """agents:
- name: ovn
  users: [{prefix: "ovn:", group: ovn-nodes}]
  write: [{resources: [nodes/status], operations: [UPDATE], relation: own-node}]
  read: [{resources: [nodes], relation: own-node}]
"""


@pytest.mark.parametrize(("authorizer", "status"), [("before", "pass"), ("after", "fail")])
async def test_reads_of_users_whose_names_tell_the_node_are_tried_too(
    tmp_path: Path, authorizer: str, status: str
) -> None:
    server = WithAgents()
    server.policy = server.authorized = PREFIXED
    server.authorizer = authorizer
    server.files["authorization.yaml"] = authorization(PREFIXED)
    role("Group ovn-nodes", "list nodes")(server)
    found = [one for _, one in await examined(server, tmp_path, (agents_reads.CHECK,))]
    assert [one.status for one in found] == [status, "pass"], found


async def test_reads_that_are_not_enforced_show_in_the_metrics_of_the_api_server(
    tmp_path: Path,
) -> None:
    server = WithAgents()
    text = b'apiserver_authorization_match_condition_exclusions_total{name="%s",type="Webhook"} 9\n'
    for name, status in ((b"noderestrict-agents", "pass"), (b"noderestrict", "unknown")):
        server.exposed["/metrics"] = text % name
        found = await examined(server, tmp_path, (agents_reads.CHECK,), expected="audit")
        assert [one.status for _, one in found] == [status, "pass"], found


async def test_authorizers_for_agents_without_policies_are_not_green(tmp_path: Path) -> None:
    server = Healthy()
    server.files["authorization.yaml"] = authorization(POLICY)
    found = dict(await faults.examined(server, tmp_path, (authorizer.CHECK, *POLICIES)))
    assert found["authorizer"].status == "pass"
    assert found["agent policies"].status == "unknown"
    assert "(noderestrict-agents)" in found["agent policies"].message


@pytest.mark.parametrize(
    "plant",
    [
        write_policy(OWNED),
        on_the_way(POLICY),
        on_the_way(OWNED, webhook(ALL, "failurePolicy", to="Ignore"),
                   webhook(NAMED, "failurePolicy", to="Ignore")),
        on_the_way(OWNED, webhook(ALL, "clientConfig", to={"url": "https://127.0.0.1"}),
                   webhook(NAMED, "clientConfig", to={"url": "https://127.0.0.1"})),
    ],
    ids=["no network", "decided", "ignored", "beside API servers"],
)  # fmt: skip
async def test_a_start_that_waits_for_nothing_it_depends_on_is_green(
    tmp_path: Path, plant: Plant
) -> None:
    server = WithAgents()
    plant(server)
    found = [one for _, one in await examined(server, tmp_path, (agents_start.CHECK,))]
    assert [one.status for one in found] == ["pass"], found
