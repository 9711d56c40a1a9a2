"""The registration on a real API server: what it skips is harmless, and it locks nobody out."""

import base64
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.render.conditions import NODE_USERS
from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from noderestrict.render.workload import CA_SECRET, NAMESPACE, RENEWAL, TLS_SECRET
from tests.e2e.conftest import USER, let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import ISSUER, APIError, Client, ControlPlane
from tests.serving.tls import Server, serving

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "tests" / "conformance"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
NODES, PODS = "/api/v1/nodes", "/api/v1/namespaces/default/pods"
#: What the enforcing webhooks may skip.
CONDITIONAL = ("pods", "nodes", "leases", "csinodes")
WOULD = "noderestrict would refuse"


@dataclass
class Registered:
    """A cluster whose nodes may do everything, but for the webhooks."""

    control_plane: ControlPlane
    admin: Client
    folder: Path
    enforcing: Server

    def client_config(self, server: Server) -> dict[str, str]:
        return {
            "url": f"https://127.0.0.1:{server.port}/validate",
            "caBundle": base64.b64encode(self.control_plane.ca.certificate).decode(),
        }


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    folder = tmp_path_factory.mktemp("registration")
    control_plane = ControlPlane()
    try:
        admin = control_plane.admin
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
        let_nodes_do_all(admin)
        namespace_ready(admin)
        for name in ("kube-node-lease", "ns", "other"):
            with contextlib.suppress(APIError):
                admin.create(
                    "/api/v1/namespaces",
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
                )
        (folder / "kubeconfig").write_text(json.dumps(control_plane.user(USER).kubeconfig()))
        (folder / "enforcing").mkdir()
        with server(control_plane, folder, "enforcing") as enforcing:
            yield Registered(control_plane, admin, folder, enforcing)
    finally:
        control_plane.stop()


def server(
    control_plane: ControlPlane, folder: Path, name: str, *flags: str
) -> contextlib.AbstractContextManager[Server]:
    (folder / name).mkdir(exist_ok=True)
    return serving(
        folder / name,
        "--kubeconfig",
        str(folder / "kubeconfig"),
        "--api-audiences",
        ISSUER,
        *flags,
        ca=control_plane.ca,
        state=False,
    )


@contextlib.contextmanager
def configured(registered: Registered, configuration: dict[str, Any]) -> Iterator[None]:
    name = configuration["metadata"]["name"]
    registered.admin.create(WEBHOOKS, configuration)
    try:
        yield
    finally:
        registered.admin.delete(f"{WEBHOOKS}/{name}")


@pytest.fixture
def enforced(registered: Registered) -> Iterator[Registered]:
    with configured(
        registered, webhook_configuration(registered.client_config(registered.enforcing))
    ):
        until_refused(registered.control_plane.node("probe"))
        yield registered


def until_refused(node: Client) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            node.create(f"{LEASES}?dryRun=All", lease("somebody-else"))
        except APIError as error:
            if "leases.noderestrict.io" in str(error) and error.code == 403:
                return
        assert time.monotonic() < end, "the webhook is not asked"
        time.sleep(0.1)


def lease(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name},
    }


def node_object(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def pod(name: str, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "pause"}]},
    }


def calls(server_: Server) -> int:
    """Return how many reviews a server has judged."""
    found = re.search(r'duration_seconds_count\{endpoint="validate"\} (\d+)', server_.metrics())
    assert found
    return int(found[1])


def live(node: Client, name: str, number: int) -> None:
    """Do what a kubelet does all the time."""
    current = node.get(f"{LEASES}/{name}")
    current["spec"]["leaseDurationSeconds"] = 40 + number
    node.request("PUT", f"{LEASES}/{name}", current)
    condition = {"type": "Ready", "status": "True", "reason": f"r{number}"}
    node.patch(f"{NODES}/{name}/status", {"status": {"conditions": [condition]}})
    node.patch(f"{PODS}/on-{name}/status", {"status": {"message": f"m{number}"}})


def start(registered: Registered, name: str) -> Client:
    """Do what a kubelet does when it starts, and run a pod."""
    node = registered.control_plane.node(name)
    labels = {"kubernetes.io/hostname": name, "node.kubernetes.io/a": "b", "example.com/c": "d"}
    node.create(NODES, node_object(name, **labels))
    node.create(LEASES, lease(name))
    node.create(
        CSI_NODES,
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSINode",
            "metadata": {"name": name},
            "spec": {"drivers": []},
        },
    )
    registered.admin.create(PODS, pod(f"on-{name}", name))
    return node


def hostile(registered: Registered, node: Client, name: str) -> list[APIError]:
    """Try what a stolen credential would be used for; return the refusals."""
    merge = "application/merge-patch+json"
    labels = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
    relabeled = {"metadata": {"labels": {"app": "other"}}}
    with contextlib.suppress(APIError):
        registered.admin.create(PODS, pod("elsewhere", "elsewhere"))
    attempts: list[tuple[Any, ...]] = [
        ("PATCH", f"{NODES}/{name}", labels, merge),
        ("PATCH", f"{NODES}/{name}/status", labels, merge),
        ("PATCH", f"{NODES}/{name}", {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}},
         merge),
        ("POST", NODES, node_object("another")),
        ("POST", NODES, node_object(name, **{"node-restriction.kubernetes.io/a": "b"})),
        ("POST", LEASES, lease("another")),
        ("PATCH", f"{PODS}/on-{name}/status", relabeled, merge),
        ("PATCH", f"{PODS}/elsewhere/status", {"status": {"message": "m"}}, merge),
        ("DELETE", f"{PODS}/elsewhere?gracePeriodSeconds=0"),
        ("POST", PODS, pod("not-a-mirror", name)),
    ]  # fmt: skip
    refusals = []
    for attempt in attempts:
        with pytest.raises(APIError) as error:
            node.request(*attempt)
        refusals.append(error.value)
    return refusals


def test_a_node_in_the_steady_state_never_asks(enforced: Registered) -> None:
    node = start(enforced, "steady")
    before = calls(enforced.enforcing)
    for number in range(10):
        live(node, "steady", number)
    node.delete(f"{PODS}/on-steady")
    assert calls(enforced.enforcing) == before


def test_without_the_webhook_nodes_live_and_hostile_requests_are_refused(
    registered: Registered,
) -> None:
    with server(registered.control_plane, registered.folder, "mortal") as mortal:
        configuration = webhook_configuration(registered.client_config(mortal))
        port = mortal.port
        with configured(registered, configuration):
            until_refused(registered.control_plane.node("probe"))
            old = start(registered, "old")
            for error in hostile(registered, old, "old"):
                assert error.code in (403, 409), error
            mortal.process.kill()
            mortal.process.wait()
            # Registering, running and reporting go on, for new nodes too.
            new = start(registered, "new")
            for number in range(3):
                live(old, "old", number)
                live(new, "new", number)
            new.delete(f"{PODS}/on-new")
            registered.admin.create(PODS, pod("on-new", "new"))
            for error in hostile(registered, new, "new"):
                assert error.code in (500, 409), error
            flags = ("--port", str(port))
            with server(registered.control_plane, registered.folder, "mortal", *flags):
                until_refused(registered.control_plane.node("probe"))
                live(new, "new", 9)
                for error in hostile(registered, new, "new"):
                    assert error.code in (403, 409), error


def reviews(resources: Collection[str] = CONDITIONAL) -> Iterator[dict[str, Any]]:
    """Yield the captured and made requests of nodes about some resources, each once."""
    seen = set()
    for file in ("admission/generated.jsonl", "captured/captured.jsonl"):
        for line in (CONFORMANCE / file).read_text().splitlines():
            request = json.loads(line)["review"].get("request") or {}
            user = request.get("userInfo") or {}
            key = json.dumps({**request, "uid": ""}, sort_keys=True)
            if (
                key in seen
                or (request.get("resource") or {}).get("resource") not in resources
                or "system:nodes" not in (user.get("groups") or ())
                or not re.fullmatch(r"system:node:[a-z0-9-]+", user.get("username") or "")
            ):
                continue
            seen.add(key)
            yield request


def cleaned(value: dict[str, Any]) -> dict[str, Any]:
    meta = value.get("metadata") or {}
    dropped = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation")
    return {**value, "metadata": {k: v for k, v in meta.items() if k not in dropped}}


class Sender:
    """Sends a captured review's request again, to a live API server."""

    def __init__(self, registered: Registered) -> None:
        self._registered = registered
        self._nodes: dict[str, Client] = {}

    def send(self, request: dict[str, Any]) -> str:
        """Return what became of it: ``unsendable``, ``refused``, ``invalid`` or ``passed``."""
        name, operation = request.get("name") or "", request["operation"]
        path = self._path(request)
        sub = request.get("subResource") or ""
        new, old = request.get("object"), request.get("oldObject")
        if not name or sub not in ("", "status") or path is None:
            return "unsendable"
        admin = self._registered.admin
        self._remove(f"{path}/{name}")
        try:
            if operation != "CREATE":
                if not isinstance(old, dict) or (old.get("metadata") or {}).get("name") != name:
                    return "unsendable"
                self._create(path, name, old)
            return self._attempt(request, path, name, sub, new)
        except (APIError, TypeError, AttributeError):
            return "unsendable"
        finally:
            self._remove(f"{path}/{name}")
            assert admin.warnings == []

    def _path(self, request: dict[str, Any]) -> str | None:
        resource, namespace = request["resource"], request.get("namespace") or ""
        group = resource.get("group") or ""
        root = f"/apis/{group}/{resource['version']}" if group else "/api/v1"
        if re.fullmatch(r"[a-z0-9-]+", namespace):
            root = f"{root}/namespaces/{namespace}"
        elif namespace:
            return None
        return f"{root}/{resource['resource']}"

    def _create(self, path: str, name: str, old: dict[str, Any]) -> None:
        admin = self._registered.admin
        value = cleaned(old)
        if path.endswith("/pods"):
            spec = dict(value.get("spec") or {})
            spec.setdefault("containers", [{"name": "c", "image": "pause"}])
            value["spec"] = spec
        created = admin.create(path, value)
        if value.get("status"):
            with contextlib.suppress(APIError):
                admin.request(
                    "PUT", f"{path}/{name}/status", {**created, "status": value["status"]}
                )

    def _remove(self, path: str) -> None:
        with contextlib.suppress(APIError):
            self._registered.admin.delete(path)

    def _attempt(self, request: dict[str, Any], path: str, name: str, sub: str, new: Any) -> str:
        user = request["userInfo"]["username"].removeprefix("system:node:")
        if user not in self._nodes:
            self._nodes[user] = self._registered.control_plane.node(user)
        node = self._nodes[user]
        where = f"{path}/{name}" + (f"/{sub}" if sub else "")
        try:
            if request["operation"] == "CREATE":
                node.create(path, cleaned(new))
            elif request["operation"] == "DELETE":
                node.delete(where)
            else:
                current = self._registered.admin.get(f"{path}/{name}")
                value = cleaned(new)
                if path.endswith("/pods") and not (value.get("spec") or {}).get("containers"):
                    spec = {
                        **(value.get("spec") or {}),
                        "containers": current["spec"]["containers"],
                    }
                    value["spec"] = spec
                for field in ("resourceVersion", "uid"):
                    value["metadata"][field] = current["metadata"][field]
                node.request("PUT", where, value)
        except APIError as error:
            return "refused" if "noderestrict.io" in str(error) else "invalid"
        self.passed(request, node.warnings)
        return "passed"

    def passed(self, request: dict[str, Any], warnings: list[str]) -> None:
        """Look at the warnings of an answer."""
        told = [warning for warning in warnings if WOULD in warning]
        assert not told, (request, told)


def test_no_condition_skips_what_a_rule_would_refuse(enforced: Registered) -> None:
    """A second registration without conditions judges the same requests, and only warns."""
    with server(enforced.control_plane, enforced.folder, "warning", "--mode", "warn") as warning:
        configuration = webhook_configuration(enforced.client_config(warning))
        configuration["metadata"]["name"] = "unconditional"
        for webhook in configuration["webhooks"]:
            webhook["name"] = f"all-{webhook['name']}"
            webhook["matchConditions"] = [NODE_USERS]
        with configured(enforced, configuration):
            probe = enforced.control_plane.node("probe")
            end = time.monotonic() + 30
            while calls(warning) == 0:
                assert time.monotonic() < end
                with contextlib.suppress(APIError):
                    probe.create(f"{LEASES}?dryRun=All", lease("somebody-else"))
                time.sleep(0.1)
            sender = Sender(enforced)
            asked = calls(enforced.enforcing)
            seen = calls(warning)
            outcomes = Counter(sender.send(request) for request in reviews())
            asked, seen = calls(enforced.enforcing) - asked, calls(warning) - seen
    print(f"{dict(outcomes)}; judged {seen}, of which the conditions let {asked} through")
    assert outcomes["refused"] > 100, outcomes
    assert outcomes["passed"] > 100, outcomes
    # The conditions did skip: else this test proves nothing.
    assert asked < seen - 50


def test_manifests_are_taken_by_the_api_server(registered: Registered) -> None:
    registered.control_plane.needs("kubectl")
    admin = registered.admin
    kubeconfig = registered.folder / "admin"
    kubeconfig.write_text(json.dumps(admin.kubeconfig()))

    def kubectl(*arguments: str, stdin: str = "") -> str:
        code, output = registered.control_plane.kubectl(kubeconfig, *arguments, stdin=stdin)
        assert code == 0, output
        return output

    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    with contextlib.suppress(APIError):
        admin.create("/api/v1/namespaces", namespace)
    for overlay in ("cert-manager", "self-signed", "control-plane", "audit"):
        folder = ROOT / "manifests" / "overlays" / overlay
        text = kubectl("kustomize", str(folder / "install"))
        known = [
            value
            for value in yaml.safe_load_all(text)
            if value["apiVersion"].split("/")[0] not in ("cert-manager.io", "monitoring.coreos.com")
        ]
        kinds = [value["kind"] for value in known]
        assert ("DaemonSet" in kinds) is (overlay == "control-plane")
        assert ("Deployment" in kinds) is (overlay != "control-plane")
        # The registration comes later, when a server answers.
        assert "ValidatingWebhookConfiguration" not in kinds
        enforce = yaml.safe_load_all(kubectl("kustomize", str(folder / "enforce")))
        (webhook,) = (v for v in enforce if v["kind"] == "ValidatingWebhookConfiguration")
        policies = {one["failurePolicy"] for one in webhook["webhooks"]}
        assert policies == {"Ignore" if overlay == "audit" else "Fail"}
        kubectl(
            "apply", "--dry-run=server", "--validate=strict", "-f", "-",
            stdin=yaml.safe_dump_all(known),
        )  # fmt: skip


def test_the_operator_makes_the_certificate_and_the_job_may_only_renew_it(
    registered: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    admin, control_plane = registered.admin, registered.control_plane
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    with contextlib.suppress(APIError):
        admin.create("/api/v1/namespaces", namespace)
    paths = {
        "Role": f"{RBAC}/namespaces/{NAMESPACE}/roles",
        "RoleBinding": f"{RBAC}/namespaces/{NAMESPACE}/rolebindings",
    }
    file = ROOT / "manifests" / "overlays" / "self-signed" / "install" / "certificates.yaml"
    for value in yaml.safe_load_all(file.read_text()):
        if value and value["kind"] in paths:
            admin.create(paths[value["kind"]], value)
    job = control_plane.user(f"system:serviceaccount:{NAMESPACE}:{RENEWAL}")
    for name, client in (("operator", admin), ("job", job)):
        (registered.folder / name).write_text(json.dumps(client.kubeconfig()))
    places = ("--secret", f"{NAMESPACE}/{TLS_SECRET}", "--ca-secret", f"{NAMESPACE}/{CA_SECRET}")
    registration = ("--webhook-configuration", "noderestrict")

    def certs(user: str, action: str, *flags: str) -> tuple[int, str]:
        kubeconfig = str(registered.folder / user)
        code = main(["certs", action, *places, "--kubeconfig", kubeconfig, *flags])
        return code, "".join(capsys.readouterr())

    def bundles() -> set[bytes]:
        value = admin.get(f"{WEBHOOKS}/noderestrict")
        return {
            base64.b64decode(webhook["clientConfig"].get("caBundle") or "")
            for webhook in value["webhooks"]
        }

    service = {"service": {"name": "noderestrict", "namespace": NAMESPACE}}
    with configured(registered, webhook_configuration(service)):
        assert certs("operator", "check", *registration)[0] == 1
        assert certs("job", "renew")[0] == 2
        assert certs("operator", "bootstrap", *registration)[0] == 0
        assert certs("operator", "check", *registration) == (0, "all is well\n")
        (first,) = bundles()
        assert certs("job", "renew") == (0, "all is well: nothing to do\n")
        soon = ("--renew-before", "1000")
        assert certs("job", "renew", *soon, "--lifetime", "2000")[0] == 0
        assert certs("operator", "check", *registration) == (0, "all is well\n")
        assert bundles() == {first}
        # What would change the registration or make a Secret is not the job's.
        for action in ("bootstrap", "rotate"):
            code, output = certs("job", action, *registration, *soon)
            assert code == 2
            assert "forbidden" in output
        assert bundles() == {first}
        code, output = certs("operator", "rotate", *registration)
        assert code == 0
        (both,) = bundles()
        assert both.startswith(first)
        assert both.count(b"BEGIN CERTIFICATE") == 2
        assert certs("job", "renew")[0] == 0
        assert certs("operator", "rotate", *registration)[0] == 0
        (second,) = bundles()
        assert both == first + second
        assert certs("operator", "check", *registration) == (0, "all is well\n")
    code, output = certs("operator", "rotate", *registration)
    assert code == 2
    assert "noderestrict" in output
    assert "not found" in output
