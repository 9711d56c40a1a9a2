"""A fault planted per check, each seen, each with what mends it; and blind is never green.

The tables are compared with the doctor's own: a check without a fault of its own fails.
"""

import argparse
import asyncio
import base64
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import build_parser
from noderestrict.cluster.judge import connected
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding, exit_code
from noderestrict.doctor.run import CHECKS, examine
from noderestrict.policy.releases import parse_release
from noderestrict.policy.settings import Settings
from noderestrict.render.load import parsed
from noderestrict.render.policies import Options as PolicyOptions
from noderestrict.render.policies import files as rendered_policies
from tests.doctor.healthy import (
    CA,
    DEPLOYMENT,
    GATES,
    REGISTRATION,
    SERVER,
    SLICES,
    SPACE,
    SYSTEM,
    Healthy,
    gates,
    kubelet,
    metrics,
)
from tests.serving.tls import client_leaf
from tests.verify.cluster import running

Object = dict[str, Any]
Plant = Callable[[Healthy], object]
#: Programs that are on every control-plane node.
PROGRAMS = frozenset({"cp", "install", "kubeadm", "ps", "sudoedit", "systemctl"})
VERBS = frozenset(
    ("apply", "auth", "create", "delete", "describe", "get", "label", "logs", "patch",
     "port-forward", "rollout", "scale", "taint")
)  # fmt: skip


def change(path: str, *steps: str | int, to: Any) -> Plant:
    """Return what changes a value of an object; None takes it away."""

    def plant(server: Healthy) -> None:
        found: Any = server.objects[path]
        for step in steps[:-1]:
            found = found[step]
        if to is None:
            del found[steps[-1]]
        else:
            found[steps[-1]] = to

    return plant


def lose(*paths: str) -> Plant:
    def plant(server: Healthy) -> None:
        for path in paths:
            del server.objects[path]

    return plant


def expose(name: str, text: bytes) -> Plant:
    path = f"{SPACE}/pods/{name}:9090/proxy/metrics" if name else "/metrics"
    return lambda server: server.exposed.__setitem__(path, text)


def grant(*right: str) -> Plant:
    return lambda server: server.rights.add(right)  # type: ignore[arg-type]


def run_pod(server: Healthy) -> None:
    """Let a worker run a pod with our certificate."""
    volume = {"name": "tls", "secret": {"secretName": "noderestrict-tls"}}
    server.put(
        f"{SPACE}/pods/x", spec={"nodeName": "n1", "volumes": [volume], "containers": []},
        status={"phase": "Running"},
    )  # fmt: skip


def static_pod(server: Healthy) -> None:
    pod = server.put(
        f"{SYSTEM}/pods/agent-n1",
        spec={"nodeName": "n1", "volumes": [{"name": "v", "csi": {"driver": "d"}}],
              "containers": []},
    )  # fmt: skip
    pod["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}


def agent(server: Healthy) -> None:
    """Let a network agent stand between API server and webhook, with a token of its own."""
    pod = {"hostNetwork": True, "serviceAccountName": "cni",
           "containers": [{"name": "c", "securityContext": {"privileged": True}}]}  # fmt: skip
    server.put("/apis/apps/v1/namespaces/cni/daemonsets/agent", spec={"template": {"spec": pod}})


def failing(message: str) -> Plant:
    """Return what lets the API server get no answer from the webhook."""
    text = f'Internal error occurred: failed calling webhook "leases.noderestrict.io": {message}'

    def plant(server: Healthy) -> None:
        server._write = (  # type: ignore[method-assign]
            lambda *_: (500, {"kind": "Status", "message": text, "code": 500})
        )

    return plant


def may_not_impersonate(server: Healthy) -> None:
    server.may_impersonate, server.user = False, ("jane", [])


def leftover(server: Healthy) -> None:
    server.put(f"{SPACE}/secrets/noderestrict-certs-token")


def open_leases(server: Healthy) -> None:
    server.node_rights.add(("update", "leases"))
    server.skipped = frozenset({"leases/namespace", "leases/own-name"})


def policies(*then: Plant, mode: str = "deny") -> Plant:
    """Return what installs the policies, and changes them."""
    path = "/apis/admissionregistration.k8s.io/v1"
    text = rendered_policies(PolicyOptions(mode=mode))["policies.yaml"]

    def plant(server: Healthy) -> None:
        for value in parsed(text):
            kind = "policies" if value["kind"].endswith("Policy") else "policybindings"
            name = value["metadata"]["name"]
            server.objects[f"{path}/validatingadmission{kind}/{name}"] = value
        for one in then:
            one(server)

    return plant


def ask_about_agents(server: Healthy) -> None:
    webhooks = server.objects[REGISTRATION]["webhooks"]
    webhooks.append({**webhooks[0], "name": "all.agents.noderestrict.io"})


def files(name: str, value: Object) -> Plant:
    return lambda server: server.files.__setitem__(name, value)


NODES_POLICY, NODES_BINDING = (
    f"/apis/admissionregistration.k8s.io/v1/validatingadmission{kind}/noderestrict-nodes"
    for kind in ("policies", "policybindings")
)
PROXY = f"{SYSTEM}/pods/kube-apiserver-cp"
FLAGS = ("spec", "containers", 0, "command")
CONTAINER = ("spec", "template", "spec", "containers", 0)
BAD_GATES = {**GATES, "PodCertificateRequest": not GATES["PodCertificateRequest"]}
ADMIN = client_leaf(CA, "admin", "system:masters").certificate
#: For each check: what is planted, the worst status, and what is said.
FAULTS: dict[str, dict[str, tuple[Plant, str, str]]] = {
    "API server": {
        "no answer": (lambda server: setattr(server, "failing", ("/version",)), "pass", ""),
    },
    "server version": {
        "CVE": (lambda server: setattr(server, "version", "v1.20.5"), "fail", "CVE-2021-25735"),
        "unknown": (lambda server: setattr(server, "version", "v1.99.0"), "warn", "outside"),
        "none": (lambda server: setattr(server, "version", "x"), "unknown", "could not be"),
    },
    "registration": {
        "none": (lose(REGISTRATION), "fail", "does not exist"),
        "fewer rules": (change(REGISTRATION, "webhooks", 0, "rules", to=[]), "fail", "not sent"),
        "open": (change(REGISTRATION, "webhooks", 0, "failurePolicy", to="Ignore"), "fail", "Ign"),
        "changed": (change(REGISTRATION, "webhooks", 1, "timeoutSeconds", to=1), "fail",
                    "timeoutSeconds is 1, rendered as 3"),
        "another CA": (change(REGISTRATION, "webhooks", 0, "clientConfig", "caBundle", to="eA=="),
                       "fail", "caBundle is not valid PEM"),
    },
    "manifests": {
        "changed": (change(DEPLOYMENT, "spec", "template", "spec", "hostPID", to=True), "fail",
                    "hostPID is true, not rendered"),
        "missing": (lose(f"{SPACE}/serviceaccounts/noderestrict"), "fail", "is missing"),
    },
    "policies": {
        "loosened": (policies(change(NODES_POLICY, "spec", "failurePolicy", to="Ignore")), "fail",
                     '/spec/failurePolicy is "Ignore", rendered as "Fail"'),
        "not bound": (policies(lose(NODES_BINDING)), "fail", "so that its policy does nothing"),
        "weak": (policies(mode="warn"), "warn", "only warn of what they should refuse"),
        "alone": (policies(lose(REGISTRATION)), "warn", "nothing holds"),
    },
    "certificate": {
        "no CA": (change(REGISTRATION, "webhooks", 0, "clientConfig", "caBundle", to=None), "fail",
                  "caBundle is empty"),
        "no answer": (failing("x509: certificate has expired"), "fail", "has expired"),
    },
    "endpoints": {
        "none": (lose(SLICES.format("noderestrict", "noderestrict-x")), "fail", "0 ready"),
        "one": (lambda server: server.objects[
            SLICES.format("noderestrict", "noderestrict-x")]["endpoints"].pop(), "warn", "1 ready"),
        "untrusted": (lambda server: server.objects[
            SLICES.format("noderestrict", "noderestrict-x")]["endpoints"].append(
                {"nodeName": "n1", "targetRef": {"name": "x"}}), "fail", "untrusted node n1"),
    },
    "cold start": {
        "an agent": (agent, "fail", "tokens for cni/agent depend on it"),
    },
    "replicas": {
        "not ready": (change(DEPLOYMENT, "status", "readyReplicas", to=1), "fail", "1 of 2"),
        "old": (change(DEPLOYMENT, "status", "updatedReplicas", to=1), "fail", "older pod"),
        "stale": (expose("a", metrics().replace(b'resource="pods"} 3.0', b'resource="pods"} 99')),
                  "fail", "stores are stale: pods (99 s)"),
        "audit": (expose("a", metrics(mode="audit")), "fail", "in mode audit"),
        "gates": (expose("", gates(BAD_GATES)), "fail", "other feature gates"),
        "blind": (expose("a", b"noderestrict_rule_mode{a=\n"), "unknown", "not visible"),
        "old rules": (lambda server: [expose(one, metrics_of_old_rules())(server) for one in "ab"],
                      "warn", "the release of its --rules (1.31) lacks"),
    },
    "rules": {
        "off": (lambda server: setattr(server, "skipped", frozenset({"nodes/labels"})), "fail",
                "does not hold: nodes/labels"),
        "silent": (failing("refused"), "fail", "did not answer"),
        "no rights": (may_not_impersonate, "unknown", "may not"),
    },
    "client verification": {
        "off": (lambda server: server.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"]
                [0]["args"].pop(), "warn", "answers any client"),
    },
    "in-tree plugin": {
        "on": (lambda server: server.objects[PROXY]["spec"]["containers"][0]["command"].append(
            "--enable-admission-plugins=NodeRestriction"), "warn", "is enabled as well"),
    },
    "static pods": {"a driver": (static_pod, "warn", "its next mirror pod will be refused")},
    "rights": {
        "too few": (lambda server: server.rights.remove((SERVER, "get", "nodes")), "fail",
                    "cannot get nodes"),
        "too many": (grant(SERVER, "get", "secrets"), "fail", "can get secrets"),
        "no events": (lambda server: server.objects[DEPLOYMENT]["spec"]["template"]["spec"][
            "containers"][0]["args"].append("--events"), "fail",
            "cannot create events, patch events in namespace default, which --events needs"),
    },
    "api audiences": {
        "others": (lambda server: [
            server.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["args"].append(
                "--api-audiences=mine"),
            server.objects[PROXY]["spec"]["containers"][0]["command"].append("--api-audiences=a"),
        ], "fail", "has --api-audiences=mine, but kube-apiserver-cp has a"),
    },
    "trusted nodes": {
        "a worker": (lambda server: server.put(
            "/api/v1/nodes/w", labels={"node-role.kubernetes.io/control-plane": ""}), "fail",
            "w: has node-role.kubernetes.io/control-plane but runs no API server"),
        "any": (change(DEPLOYMENT, "spec", "template", "spec", "affinity", to=None), "fail",
                "can run on any node"),
    },
    "credentials": {
        "a worker": (run_pod, "fail", "Secret noderestrict-tls: accessible to n1 through pods"),
        "an account": (grant(f"{SERVER}-renewal", "create", "pods"), "fail", "can create pods"),
    },
    "old manifests": {"a token": (leftover, "fail", "noderestrict-certs-token still exists")},
    "node credentials": {
        "an administrator": (files("kubelet.conf", kubelet(ADMIN)), "fail", "is not a node"),
        "no kubeconfig": (files("kubelet.conf", {"kind": "Pod"}), "fail", "kind: 'Pod'"),
    },
    "authorizer": {
        "not ready": (change(f"{SYSTEM}/pods/noderestrict-authorizer-cp", "status", to={}), "fail",
                      "noderestrict-authorizer-cp is not ready"),
        "none": (lose(f"{SYSTEM}/pods/noderestrict-authorizer-cp2"), "fail", "no authorizer runs"),
        "no answer": (lambda server: setattr(server, "authorizes", {
            "allowed": False, "evaluationError": "refused"}), "fail", "gets no answer: refused"),
        "leases": (open_leases, "fail", "lets system:nodes write Leases"),
        "slow": (files("authorization.yaml", {"authorizers": [
            {"type": "RBAC"}, {"type": "Webhook", "webhook": {}}]}), "warn", "is unset"),
        "before RBAC": (lambda server: server.objects[PROXY]["spec"]["containers"][0][
            "command"].append("--authorization-mode=Webhook,RBAC"), "warn", "precedes RBAC in"),
    },
    "agent policies": {
        "not seen": (ask_about_agents, "unknown", "no server with their policies is visible"),
    },
}  # fmt: skip
EVERY = [
    pytest.param(check, fault, id=f"{check}: {name}")
    for check, faults in FAULTS.items()
    for name, fault in faults.items()
]


def metrics_of_old_rules() -> bytes:
    release = parse_release("1.31")
    text = metrics(Settings(features=GATES, release=release))
    return text.replace(b'rules="1.37"', b'rules="1.31"')


async def examined(
    server: Healthy, folder: Path, checks: tuple[Check, ...] = CHECKS
) -> list[tuple[str, Finding]]:
    await asyncio.to_thread(server.flags, folder)
    options = Options(
        node_kubeconfigs=(folder / "kubelet.conf",),
        authorization_config=folder / "authorization.yaml",
    )
    async with running(server, folder) as kubeconfig, connected(kubeconfig, None) as connection:
        return [(check.name, one) async for check, one in examine(connection, options, checks)]


def test_each_check_has_a_fault_of_its_own() -> None:
    assert set(FAULTS) == {check.name for check in CHECKS}
    assert all(FAULTS.values())


async def test_a_healthy_cluster_is_green(tmp_path: Path) -> None:
    found = await examined(Healthy(), tmp_path)
    assert [(check, one) for check, one in found if one.status != "pass"] == []
    assert {check for check, _ in found} == {check.name for check in CHECKS}
    assert exit_code(one for _, one in found) == 0


@pytest.mark.parametrize(("check", "fault"), EVERY)
async def test_a_planted_fault_is_seen_with_what_mends_it(
    tmp_path: Path, check: str, fault: tuple[Plant, str, str]
) -> None:
    plant, status, says = fault
    server = Healthy()
    plant(server)
    (wanted,) = [one for one in CHECKS if one.name == check]
    found = [one for _, one in await examined(server, tmp_path, (wanted,))]
    assert_seen(found, status, says)


def assert_seen(found: Sequence[Finding], status: str, says: str) -> None:
    """Assert that a fault shows as the worst finding, and that each finding says what mends it."""
    order = ("pass", "warn", "unknown", "fail")
    worst = max(found, key=lambda one: order.index(one.status))
    assert worst.status == status, found
    assert any(says in one.message and one.status == status for one in found), found
    for one in found:
        assert "\n" not in one.message
        if one.status != "pass":
            assert one.remedy
            assert one.command, one
            for command in one.command.splitlines():
                assert_typable(command)


def assert_typable(command: str) -> None:
    """Assert that a shell would run a command: a program that is there, with known flags."""
    words = shlex.split(command.removesuffix(" &").partition(" | ")[0])
    if words[0] == "sudo":
        del words[0]
    if words[0] == "kubectl":
        words = [one for one in words[1:] if not one.startswith("--kubeconfig=")]
        if words[0] == "-n":
            del words[:2]
        assert words[0] in VERBS, command
    elif words[0] == "noderestrict":
        assert_parsed(words[1:])
    else:
        assert words[0] in PROGRAMS, command


def assert_parsed(words: list[str]) -> None:
    """Assert that our command line takes words; those in capitals stand for something."""
    filled = [one.replace("HOST:PORT", "127.0.0.1:1").replace("NAME", "name") for one in words]
    parser, _ = build_parser()
    try:
        parsed = parser.parse_args(filled)
    except SystemExit as error:
        raise AssertionError(f"noderestrict {shlex.join(words)}") from error
    assert isinstance(parsed, argparse.Namespace)


async def test_a_ca_bundle_may_be_empty_where_the_api_server_verifies_the_webhook(
    tmp_path: Path,
) -> None:
    server = Healthy()
    for webhook in server.objects[REGISTRATION]["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    del server.objects[f"{SPACE}/secrets/noderestrict-tls"]["data"]["ca.crt"]
    server.says = 'admission webhook "leases.noderestrict.io" denied the request: {}'.format
    found = await examined(server, tmp_path)
    assert [(check, one) for check, one in found if one.status != "pass"] == []
    # Of one webhook that it did not call, that says nothing.
    first = server.objects[REGISTRATION]["webhooks"][0]
    first["clientConfig"]["caBundle"] = base64.b64encode(CA.certificate).decode()
    (certificate,) = [one for one in CHECKS if one.name == "certificate"]
    statuses = [one.status for _, one in await examined(server, tmp_path, (certificate,))]
    assert statuses == ["unknown", "pass"]


# Blind in each possible way.

#: Asked for what it adds; what else is asked suffices.
HELPFUL = frozenset(
    (
        # Another check says so.
        "/version",
        # The versions of groups: the newest that is served is asked for.
        "/apis/certificates.k8s.io", "/apis/resource.k8s.io", "/apis/storage.k8s.io",
        # Our own token, which may not show the audiences.
        "/apis/authentication.k8s.io/v1/tokenreviews",
        "/.well-known/openid-configuration",
    )
)  # fmt: skip


#: An API server that refuses an answer is there, and rules are judged by what becomes of requests.
BLINDED = [one for one in CHECKS if one.name not in ("API server", "rules", "server version")]


@pytest.mark.parametrize("code", [401, 403, 500])
@pytest.mark.parametrize("check", BLINDED, ids=[one.name for one in BLINDED])
async def test_a_check_that_one_of_its_sources_is_hidden_from_is_not_green(
    tmp_path: Path, check: Check, code: int
) -> None:
    server = Healthy()
    await examined(server, tmp_path, (check,))
    sources = sorted(one for one in server.asked if one[1] not in HELPFUL)
    # A 403 is what most people meet; the others are only told in other words.
    sources = sources[:: 1 if code == 403 else 5]
    green = []
    for source in sources:
        blind = Healthy()
        blind.code, blind.refuses = code, source.__eq__
        found = await examined(blind, tmp_path, (check,))
        if exit_code(one for _, one in found) == 0:
            green.append(source)
        assert all(one.status == "pass" or one.command for _, one in found), found
    assert green == []
