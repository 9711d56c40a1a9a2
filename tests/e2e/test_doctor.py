"""Each check of the doctor, and what makes it fail, on a real API server."""

import base64
import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import LATEST_MINOR
from noderestrict.render.authorizer import authorization_configuration
from noderestrict.render.policy_flags import policy_flags
from noderestrict.render.registration import webhook_configuration
from tests.e2e.conftest import USER
from tests.e2e.control_plane import APIError
from tests.e2e.test_registration import RBAC, Registered, configured, until_refused
from tests.e2e.test_registration import registered as registered  # a fixture
from tests.serving.tls import authority, client_leaf

Examined = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def doctor(registered: Registered, capsys: pytest.CaptureFixture[str]) -> Examined:
    kubeconfig = registered.folder / "doctor"
    kubeconfig.write_text(json.dumps(registered.admin.kubeconfig()))

    def examine(*flags: str) -> dict[str, tuple[str, str]]:
        capsys.readouterr()
        code = main(["doctor", "--kubeconfig", str(kubeconfig), "--server-user", USER,
                     "--output", "json", *flags])  # fmt: skip
        findings = json.loads(capsys.readouterr().out)
        statuses = {finding["status"] for finding in findings}
        assert code == (1 if "fail" in statuses else 2 if "unknown" in statuses else 0)
        order = ("pass", "warn", "unknown", "fail")
        worst: dict[str, tuple[str, str]] = {}
        for finding in findings:
            check, status = finding["check"], finding["status"]
            if check not in worst or order.index(status) > order.index(worst[check][0]):
                worst[check] = (status, finding["message"])
        return worst

    return examine


def configuration(registered: Registered) -> dict[str, Any]:
    return webhook_configuration(registered.client_config(registered.enforcing))


@pytest.fixture
def healthy(registered: Registered) -> Iterator[None]:
    with configured(registered, configuration(registered)):
        until_refused(registered.control_plane.node("probe"))
        yield


@pytest.mark.usefixtures("healthy")
def test_a_guarded_cluster_passes(registered: Registered, doctor: Examined, tmp_path: Path) -> None:
    kubelet = tmp_path / "kubelet"
    kubelet.write_text(json.dumps(registered.control_plane.node("n1").kubeconfig()))
    authorization = tmp_path / "authorization.yaml"
    authorization.write_text(yaml.safe_dump(authorization_configuration("/w")))
    found = doctor("--node-kubeconfig", str(kubelet), "--authorization-config", str(authorization))
    for check in ("registration", "rights", "node credentials", "authorizer"):
        assert found[check][0] == "pass", found
    # A cluster without Nodes has nothing to try some rules on.
    assert found["rules"][0] == "pass" or "could not be tried" in found["rules"][1], found
    known = int(registered.admin.get("/version")["minor"]) <= LATEST_MINOR
    assert found["server version"][0] == ("pass" if known else "warn")
    # The certificate of a test lives for a day.
    assert "expires in" in found["certificate"][1]
    assert found["in-tree plugin"][0] == "pass"


def test_a_registration_for_other_policy_flags_fails(
    registered: Registered, doctor: Examined
) -> None:
    extra = Extra.of(parse_strict_rules("nodes/pod-cidr,events/about-own"))
    client = registered.client_config(registered.enforcing)
    flags = policy_flags(extra)
    with configured(registered, webhook_configuration(client)):
        assert "events" in doctor(*flags)["registration"][1]
    with configured(registered, webhook_configuration(client, extra=extra)):
        assert doctor(*flags)["registration"][0] == "pass"
        status, message = doctor()["registration"]
        assert (status, "not-own-node-as-before" in message) == ("fail", True)


def test_an_unregistered_webhook_fails(registered: Registered, doctor: Examined) -> None:
    found = doctor()
    assert found["registration"][0] == "fail"
    assert found["rules"][0] == "fail"


def change(path: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(configuration: dict[str, Any]) -> None:
        where: Any = configuration["webhooks"]
        for step in path[:-1]:
            where = where[step]
        where[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("edit", "status", "message"),
    [
        (lambda value: value["webhooks"].pop(0), "fail", "not sent to any webhook"),
        (change([0, "rules", 0, "resources"], ["pods"]), "fail", "pods/*"),
        (change([0, "rules", 0, "operations"], ["CREATE"]), "fail", "DELETE core/pods"),
        (change([0, "matchPolicy"], "Exact"), "fail", "matchPolicy is 'Exact'"),
        (change([0, "failurePolicy"], "Ignore"), "warn", "failurePolicy is 'Ignore'"),
        (change([0, "timeoutSeconds"], 30), "warn", "timeoutSeconds is 30"),
        (
            change([0, "namespaceSelector"], {"matchLabels": {"a": "b"}}),
            "fail", "namespaceSelector excludes objects",
        ),
        (
            change([0, "matchConditions", 0, "expression"], "false"),
            "fail", "differs from the rendered one",
        ),
        (
            # What it proves of leases, it does not of pods.
            lambda value: value["webhooks"][0]["matchConditions"].append(
                value["webhooks"][2]["matchConditions"][0]
            ),
            "fail", "'not-own-lease' differs from the rendered one",
        ),
        (
            lambda value: value["webhooks"][2]["rules"].extend(value["webhooks"][0]["rules"]),
            "fail", "'not-own-lease' is not valid for pods",
        ),
        (change([0, "rules", 0, "scope"], "Cluster"), "fail", "core/pods"),
        (change([2, "rules", 0, "apiVersions"], ["v1beta1"]), "fail", "coordination.k8s.io/leases"),
        (
            change([0, "admissionReviewVersions"], ["v1beta1", "v1"]),
            "fail", "the webhook answers only v1",
        ),
    ],
)  # fmt: skip
def test_a_registration_with_a_hole_fails(
    registered: Registered, doctor: Examined, edit: Any, status: str, message: str
) -> None:
    value = copy.deepcopy(configuration(registered))
    edit(value)
    with configured(registered, value):
        found = doctor()["registration"]
    assert found[0] == status
    assert message in found[1]


def test_a_ca_bundle_that_verifies_nothing_fails(registered: Registered, doctor: Examined) -> None:
    value = configuration(registered)
    for webhook in value["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    with configured(registered, value):
        assert "caBundle is empty" in doctor()["certificate"][1]
    other = authority()
    bundle = registered.client_config(registered.enforcing)
    bundle["caBundle"] = base64.b64encode(other.certificate).decode()
    with configured(registered, webhook_configuration(bundle)):
        found = doctor()["certificate"]
    assert found[0] == "fail"
    assert "does not verify" in found[1]


def test_a_server_that_is_away_fails(registered: Registered, doctor: Examined) -> None:
    client = {**registered.client_config(registered.enforcing), "url": "https://127.0.0.1:1/x"}
    with configured(registered, webhook_configuration(client)):
        found = doctor()
    assert "no answer" in found["certificate"][1]
    assert found["rules"][0] == "fail"


def test_a_service_without_endpoints_fails(registered: Registered, doctor: Examined) -> None:
    bundle = registered.client_config(registered.enforcing)["caBundle"]
    client = {"service": {"name": "nowhere", "namespace": "default"}, "caBundle": bundle}
    with configured(registered, webhook_configuration(client)):
        found = doctor()
        assert found["endpoints"] == ("fail", "Service default/nowhere has 0 ready endpoints")
        assert found["certificate"][0] == "fail"
        port = registered.enforcing.port
        assert found["certificate"][1] != doctor("--connect", f"127.0.0.1:{port}")["certificate"][1]


@pytest.mark.usefixtures("healthy")
def test_rights_that_are_missing_or_too_many_fail(registered: Registered, doctor: Examined) -> None:
    nobody = doctor("--server-user", "system:serviceaccount:default:nobody")["rights"]
    assert nobody[0] == "fail"
    assert "cannot get nodes" in nobody[1]
    admin = registered.admin
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "too-much"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "cluster-admin"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}],
    }  # fmt: skip
    admin.create(f"{RBAC}/clusterrolebindings", role)
    try:
        end = time.monotonic() + 10
        while (found := doctor()["rights"])[0] != "fail":
            assert time.monotonic() < end
        assert "can get secrets" in found[1]
    finally:
        admin.delete(f"{RBAC}/clusterrolebindings/too-much")


@pytest.mark.usefixtures("healthy")
def test_credentials_that_are_no_nodes_fail(
    registered: Registered, doctor: Examined, tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    for user, group in (("system:node:n1", ""), ("n1", "system:nodes"), ("system:node:", "x")):
        file.write_text(json.dumps(registered.control_plane.user(user, group).kubeconfig()))
        assert "is not a node" in doctor("--node-kubeconfig", str(file))["node credentials"][1]
    two_names = client_leaf(registered.control_plane.ca, "system:node:n1", "system:nodes", "admin")
    config = registered.control_plane.node("n1").kubeconfig()
    admin = {
        "client-certificate-data": base64.b64encode(two_names.certificate).decode(),
        "client-key-data": base64.b64encode(two_names.key).decode(),
    }
    config["users"].insert(0, {"name": "v", "user": admin})
    file.write_text(json.dumps(config))
    assert doctor("--node-kubeconfig", str(file))["node credentials"][0] == "pass"
    config["contexts"][0]["context"]["user"] = "v"
    file.write_text(json.dumps(config))
    assert "CN=admin," in doctor("--node-kubeconfig", str(file))["node credentials"][1]
    file.write_text("nothing")
    assert doctor("--node-kubeconfig", str(file))["node credentials"][0] == "fail"


@pytest.mark.usefixtures("healthy")
def test_an_authorizer_in_the_wrong_order_or_slow_is_told(doctor: Examined, tmp_path: Path) -> None:
    file = tmp_path / "authorization.yaml"
    value = authorization_configuration("/w", seconds=300)
    value["authorizers"].reverse()
    file.write_text(yaml.safe_dump(value))
    assert doctor("--authorization-config", str(file))["authorizer"][0] == "warn"
    # Without a section of its own, the webhook's answers are remembered for minutes.
    file.write_text(yaml.safe_dump({"authorizers": [{"type": "RBAC"}, {"type": "Webhook"}]}))
    assert doctor("--authorization-config", str(file))["authorizer"][0] == "warn"
    for authorizers in ([{"type": "RBAC"}], [{"type": "Webhook"}, {"type": "AlwaysAllow"}]):
        file.write_text(yaml.safe_dump({"authorizers": authorizers}))
        assert doctor("--authorization-config", str(file))["authorizer"][0] == "fail"


@pytest.mark.usefixtures("healthy")
def test_an_api_server_with_the_plugin_on_is_told(registered: Registered, doctor: Examined) -> None:
    admin = registered.admin
    with contextlib.suppress(APIError):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}
        admin.create("/api/v1/namespaces", namespace)
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "kube-apiserver", "labels": {"component": "kube-apiserver"}},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "image": "x",
             "command": ["kube-apiserver", "--enable-admission-plugins=NodeRestriction",
                         "--authorization-mode=Webhook,RBAC"]}]},
    }  # fmt: skip
    admin.create("/api/v1/namespaces/kube-system/pods", pod)
    try:
        found = doctor()
        assert "NodeRestriction is enabled as well" in found["in-tree plugin"][1]
        assert "Webhook precedes RBAC" in found["authorizer"][1]
    finally:
        admin.delete("/api/v1/namespaces/kube-system/pods/kube-apiserver")
