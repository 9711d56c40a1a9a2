"""Which nodes could read what our pods are given, and who could change the registration."""

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cli import main
from noderestrict.cluster.judge import connected
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.run import CHECKS, examine
from noderestrict.render.workload import DEDICATED_NODES, NAMESPACE
from tests.cli.store import DEEP, Store, stored
from tests.render.overlays import build
from tests.serving.tls import authority

CONTROL_PLANE = {"node-role.kubernetes.io/control-plane": ""}
SPACE = f"/api/v1/namespaces/{NAMESPACE}"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
OLD = f"{SPACE}/secrets/noderestrict-certs-token"
Object = dict[str, Any]


def path_of(value: Object) -> str:
    """Return the path of an object."""
    version, metadata, plural = value["apiVersion"], value["metadata"], f"{value['kind'].lower()}s"
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    space = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{base}{space}/{plural.replace('ys', 'ies')}/{metadata['name']}"


def is_list(path: str) -> bool:
    """Tell whether a path of the API ends with a plural, or with what belongs to no object."""
    steps = path.split("/")[3 if path.startswith("/api/") else 4 :]
    return len(steps) % 2 == 1 or not path.startswith(("/api/v1/", "/apis/"))


class Cluster(Store):
    """An API server with lists, and with an authorizer that knows a table."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[Object]] = {SLICES: []}
        #: Lists whose last object has managedFields that no decoder takes.
        self.deep: set[str] = set()
        #: User, verb and resource.
        self.rights: set[tuple[str, str, str]] = set()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Object]:
        if path.endswith("/subjectaccessreviews"):
            spec = body["spec"]
            asked = spec["resourceAttributes"]
            key = (spec["user"], asked["verb"], asked["resource"])
            return 201, {"status": {"allowed": key in self.rights}}
        if path.endswith("/selfsubjectreviews"):
            return 201, {"status": {"userInfo": {"username": "admin"}}}
        if path.endswith("/selfsubjectaccessreviews"):
            return 201, {"status": {"allowed": False}}
        if path == "/version":
            return 200, {"gitVersion": "v1.36.2"}
        if method == "GET" and path not in self.objects and path in self.lists:
            answer = self.list(self.lists[path])
            if path in self.deep:
                answer["items"][-1]["metadata"]["managedFields"] = DEEP
            return 200, answer
        code, value = super().answer(method, path, body)
        if method == "GET" and code == 404 and is_list(path):
            return 200, self.list([])
        return code, value

    def list(self, items: list[Object]) -> Object:
        return {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}

    def add(self, path: str, value: Object) -> None:
        self.lists.setdefault(path, []).append(value)

    def node(self, name: str, labels: Object, address: str = "", *taints: str) -> None:
        self.add(
            "/api/v1/nodes",
            {
                "metadata": {"name": name, "labels": labels},
                "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]},
                "status": {"addresses": [{"type": "InternalIP", "address": address or name}]},
            },
        )

    def api_server(self, address: str) -> None:
        self.add(SLICES, {"endpoints": [{"addresses": [address]}]})

    def install(self, overlay: str, *components: str) -> None:
        plurals = {
            "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
            "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
            "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
            "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
            "Secret": "/api/v1/namespaces/{}/secrets",
        }
        for value in build(overlay, components, parts=["install"]):
            self.objects[path_of(value)] = value
            if value["kind"] in plurals:
                self.add(plurals[value["kind"]].format(NAMESPACE), value)
        for name in ("noderestrict-tls", "noderestrict-ca"):
            self.add(f"{SPACE}/secrets", {"metadata": {"name": name}})

    def pod(self, name: str, node: str, secret: str, phase: str = "Running") -> None:
        self.add(
            "/api/v1/pods",
            {
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "nodeName": node,
                    "serviceAccountName": "noderestrict",
                    "volumes": [{"name": "a", "secret": {"secretName": secret}}],
                },
                "status": {"phase": phase},
            },
        )


@dataclass
class Doctor:
    cluster: Cluster
    kubeconfig: Path

    def __call__(self, name: str) -> list[tuple[str, str]]:
        return asyncio.run(self._findings([one for one in CHECKS if one.name == name]))

    async def _findings(self, checks: list[Check]) -> list[tuple[str, str]]:
        async with connected(str(self.kubeconfig), None) as connection:
            found = examine(connection, Options(), checks)
            return [(one.status, one.message) async for _, one in found]


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Doctor]:
    cluster = Cluster()
    with stored(cluster, tmp_path) as kubeconfig:
        yield Doctor(cluster, kubeconfig)


@pytest.fixture
def guarded(doctor: Doctor) -> Cluster:
    """Return a cluster with one control-plane node, on which our pods run."""
    cluster = doctor.cluster
    cluster.install("self-signed")
    cluster.node("cp", CONTROL_PLANE, "10.0.0.1")
    cluster.node("w1", {})
    cluster.api_server("10.0.0.1")
    cluster.pod("server", "cp", "noderestrict-tls")
    return cluster


def statuses(found: list[tuple[str, str]]) -> set[str]:
    return {status for status, _ in found}


@pytest.mark.usefixtures("guarded")
def test_trusted_nodes_and_what_they_read_are_listed(doctor: Doctor) -> None:
    ((status, message),) = doctor("trusted nodes")
    assert (status, message) == ("pass", "node-role.kubernetes.io/control-plane: cp")
    found = doctor("credentials")
    assert statuses(found) == {"pass"}
    assert ("pass", "Secret noderestrict-tls: accessible to cp") in found
    assert ("pass", "Secret noderestrict-ca: accessible to no node") in found
    assert ("pass", "tokens of ServiceAccount noderestrict: accessible to cp") in found


def test_a_worker_that_runs_or_ran_one_of_our_pods_is_named(
    guarded: Cluster, doctor: Doctor
) -> None:
    guarded.pod("job", "w1", "noderestrict-ca", "Succeeded")
    failed = [message for status, message in doctor("credentials") if status == "fail"]
    assert failed == [
        "Secret noderestrict-ca: accessible to w1 through pods noderestrict/job",
        "tokens of ServiceAccount noderestrict: accessible to w1 through pods noderestrict/job",
    ]


def test_a_worker_with_the_label_of_trusted_nodes_is_named(
    guarded: Cluster, doctor: Doctor
) -> None:
    guarded.node("w2", CONTROL_PLANE)
    ((status, message),) = doctor("trusted nodes")
    assert status == "fail"
    assert message.startswith("w2: has node-role.kubernetes.io/control-plane but runs no API")
    guarded.pod("other", "w2", "noderestrict-tls")
    assert (
        "fail",
        "Secret noderestrict-tls: accessible to w2 through pods noderestrict/other",
    ) in (doctor("credentials"))


def test_a_node_that_hides_behind_its_managed_fields_is_named(
    guarded: Cluster, doctor: Doctor
) -> None:
    """It may write them as deep as it likes, and no decoder takes the list of Nodes then."""
    guarded.node("w2", CONTROL_PLANE)
    guarded.deep.add("/api/v1/nodes")
    ((status, message),) = doctor("trusted nodes")
    assert status == "fail"
    assert message.startswith("w2: has")


def test_a_worker_that_pretends_to_run_an_api_server_is_named(
    guarded: Cluster, doctor: Doctor
) -> None:
    mirror = {
        "metadata": {"name": "kube-apiserver-w3", "namespace": "kube-system",
                     "labels": {"component": "kube-apiserver"}},
        "spec": {"nodeName": "w3", "containers": [{"name": "a"}]},
    }  # fmt: skip
    guarded.node("w3", CONTROL_PLANE)
    guarded.add("/api/v1/namespaces/kube-system/pods", mirror)
    assert any("w3: has" in message for _, message in doctor("trusted nodes"))
    guarded.node("w4", CONTROL_PLANE, "10.0.0.1")
    found = doctor("trusted nodes")
    assert any("cp, w4: they report the same API server address" in message for _, message in found)


def test_where_no_api_server_can_be_seen_the_chosen_nodes_are_shown(
    guarded: Cluster, doctor: Doctor
) -> None:
    guarded.lists[SLICES] = []
    ((status, message),) = doctor("trusted nodes")
    assert status == "unknown"
    assert "cp: whether an API server runs there is unknown" in message
    assert statuses(doctor("credentials")) == {"pass"}


def test_pods_without_a_node_to_run_on_and_pods_that_run_anywhere_are_reported(
    doctor: Doctor,
) -> None:
    doctor.cluster.install("self-signed")
    doctor.cluster.node("w1", {})
    ((status, message),) = doctor("trusted nodes")
    assert status == "fail"
    assert "no node has node-role.kubernetes.io/control-plane," in message
    for value in doctor.cluster.lists[f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"]:
        del value["spec"]["template"]["spec"]["affinity"]
    found = doctor("trusted nodes")
    assert any("deployment noderestrict: can run on any node" in text for _, text in found)


def test_nodes_that_are_set_apart_need_a_taint_too(doctor: Doctor) -> None:
    cluster = doctor.cluster
    cluster.install("self-signed", "dedicated-nodes")
    cluster.node("cp", CONTROL_PLANE, "10.0.0.1")
    cluster.api_server("10.0.0.1")
    cluster.node("d1", {DEDICATED_NODES: "trusted"}, "", DEDICATED_NODES)
    cluster.pod("server", "d1", "noderestrict-tls")
    assert doctor("trusted nodes") == [("pass", f"{DEDICATED_NODES}=trusted: d1")]
    assert statuses(doctor("credentials")) == {"pass"}
    cluster.node("d2", {DEDICATED_NODES: "trusted"}, "", "example.com/a")
    ((status, message),) = doctor("trusted nodes")
    assert status == "warn"
    assert message.startswith("d2: has")


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("patch", "validatingwebhookconfigurations"), ("delete", "validatingwebhookconfigurations"),
     ("create", "secrets"), ("create", "pods")],
)  # fmt: skip
def test_an_account_that_can_change_the_registration_or_take_tokens_is_named(
    guarded: Cluster, doctor: Doctor, verb: str, resource: str
) -> None:
    user = f"system:serviceaccount:{NAMESPACE}:noderestrict-renewal"
    guarded.rights.add((user, verb, resource))
    (message,) = [text for status, text in doctor("credentials") if status == "fail"]
    assert message.startswith(f"{user} can {verb} {resource}")
    server = f"system:serviceaccount:{NAMESPACE}:noderestrict"
    guarded.rights.add((server, verb, resource))
    assert any(f"can {verb} {resource}" in text for _, text in doctor("rights"))


def test_the_account_that_changes_the_ca_is_reported_while_it_exists(
    guarded: Cluster, doctor: Doctor
) -> None:
    account = "noderestrict-new-ca"
    guarded.add(f"{SPACE}/serviceaccounts", {"metadata": {"name": account}})
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    guarded.rights.add((user, "patch", "validatingwebhookconfigurations"))
    (message,) = [text for status, text in doctor("credentials") if status == "warn"]
    assert message.startswith(f"{user} can patch")


def test_what_an_older_version_left_behind_is_reported(guarded: Cluster, doctor: Doctor) -> None:
    assert doctor("old manifests") == [("pass", "none left")]
    guarded.objects[OLD] = {"metadata": {"name": "noderestrict-certs-token"}}
    role = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/noderestrict-certs"
    guarded.objects[role] = {"metadata": {"name": "noderestrict-certs"}}
    ((status, message),) = doctor("old manifests")
    assert status == "fail"
    assert "Secret noderestrict/noderestrict-certs-token" in message
    assert "ClusterRoleBinding noderestrict-certs" in message


def registered(cluster: Cluster, overlay: str, ca: bytes) -> Object:
    """Install the registration of an overlay, and return it."""
    (value,) = [one for one in build(overlay) if one["kind"] == "ValidatingWebhookConfiguration"]
    for webhook in value["webhooks"]:
        webhook["clientConfig"]["caBundle"] = base64.b64encode(ca).decode()
    cluster.objects[f"{WEBHOOKS}/noderestrict"] = value
    tls = cluster.lists[f"{SPACE}/secrets"]
    (held,) = [one for one in tls if one["metadata"]["name"] == "noderestrict-tls"]
    held["data"] = {"ca.crt": base64.b64encode(ca).decode()}
    return value


@pytest.mark.parametrize("overlay", ["audit", "control-plane", "self-signed"])
def test_a_registration_is_compared_with_what_the_servers_expect(
    doctor: Doctor, overlay: str
) -> None:
    cluster = doctor.cluster
    cluster.install(overlay)
    installed = registered(cluster, overlay, authority().certificate)
    found = doctor("registration")
    assert ("pass", "it is what the servers expect") in found
    assert "fail" not in statuses(found)
    # Alike in every webhook, so that they do not differ from each other.
    for webhook in installed["webhooks"]:
        webhook["timeoutSeconds"] = 1
        webhook["clientConfig"]["caBundle"] = base64.b64encode(authority().certificate).decode()
    told = [text for status, text in doctor("registration") if status == "fail"]
    assert any("timeoutSeconds is 1" in text for text in told)
    assert any("caBundle has 1 CA not in" in text for text in told)


def test_an_endpoint_on_a_node_that_is_not_trusted_is_named(
    guarded: Cluster, doctor: Doctor
) -> None:
    registered(guarded, "self-signed", authority().certificate)
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    for node in ("cp", "w1"):
        pod = {"kind": "Pod", "name": f"on-{node}"}
        guarded.add(slices, {"endpoints": [{"nodeName": node, "targetRef": pod}]})
    (message,) = [text for status, text in doctor("endpoints") if status == "fail"]
    assert message.startswith("Service noderestrict/noderestrict: pod on-w1 on untrusted node w1")


@pytest.mark.parametrize("url", ["https://h:99999/v", "https://[::1/v", "https://h:x/v"])
def test_a_registered_url_that_cannot_be_called_is_reported(
    guarded: Cluster, doctor: Doctor, url: str
) -> None:
    webhook = {"name": "a", "clientConfig": {"url": url, "caBundle": "YQ=="}}
    guarded.objects[f"{WEBHOOKS}/noderestrict"] = {"metadata": {"name": "noderestrict"},
                                                   "webhooks": [webhook]}  # fmt: skip
    ((status, message),) = doctor("certificate")
    assert status == "fail"
    assert url in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "command",
    [("doctor",), ("graph", "reachable", "n"), ("certs", "check", "--secret", "a/b")],
)
def test_an_api_server_at_an_invalid_port_is_reported_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    from tests.cli.store import kubeconfig

    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(kubeconfig("https://127.0.0.1:99999")))
    main([*command, "--kubeconfig", str(file)])
    captured = capsys.readouterr()
    assert "https://127.0.0.1:99999" in captured.out + captured.err
    assert "invalid URL" in captured.out + captured.err
    assert captured.err.count("\n") <= 1
