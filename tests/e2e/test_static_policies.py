"""Policies and registration from files: in force before the first request, changed by few."""

import base64
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.policy.features import parse_version
from noderestrict.render.client_verification import FOLDER
from noderestrict.render.kubeadm import BARE
from noderestrict.render.policies import policies
from noderestrict.render.protection import POLICY, Accounts
from noderestrict.render.registration import (
    Registration,
    cluster_role,
    cluster_role_binding,
    mirror_pod_policy,
)
from noderestrict.render.static import GATE, SINCE, Options, files
from noderestrict.render.workload import CA_SECRET, NAMESPACE, NEW_CA, TLS_SECRET
from tests.e2e.conftest import USER, let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import ISSUER, APIError, Client, ControlPlane, assets, free_port
from tests.e2e.test_credentials import TOKEN_REQUEST
from tests.e2e.test_registration import NODES, RBAC, WEBHOOKS, node_object
from tests.render.overlays import FILES, build
from tests.serving.tls import authority, serving

pytestmark = pytest.mark.long

Object = dict[str, Any]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES = f"{ADMISSION}/validatingadmissionpolicies"
BINDINGS = f"{ADMISSION}/validatingadmissionpolicybindings"
SPACES = "/api/v1/namespaces"
OURS = f"{RBAC}/namespaces/{NAMESPACE}"
DEPLOYER, WRITER = "ops/deployer", f"{NAMESPACE}/{NEW_CA}"
ACCOUNTS = Accounts(users=("chief",), deployers=(DEPLOYER,))
PROTECTED = "only the administrators and deployers"
#: An API server reads changed files at once, at the latest after a minute.
NOTICED_SECONDS = 90


def minor() -> int:
    """Return the minor version of the API server."""
    said = subprocess.run(
        [assets() / "kube-apiserver", "--version"], capture_output=True, text=True, check=True
    )
    return parse_version(said.stdout.split()[-1])


class Static:
    """An API server with our files, whose nodes RBAC lets do everything."""

    def __init__(self, folder: Path, *, webhook: int | None = None, ca: bytes = b"") -> None:
        if minor() < SINCE:
            pytest.skip(f"API servers load policies from files since 1.{SINCE}")
        self.folder = folder
        registration = None
        if webhook is not None:
            registration = Registration({"url": f"https://127.0.0.1:{webhook}/validate"})
        rendered = files(Options(BARE, minor(), policies(), ACCOUNTS, registration, ca))
        for path, text in rendered.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace(FOLDER, str(folder / "files")))
        (cluster,) = yaml.safe_load_all((folder / "kubeadm.yaml").read_text())
        flags = {one["name"]: one["value"] for one in cluster["apiServer"]["extraArgs"]}
        assert (GATE in flags.get("feature-gates", "")) is (minor() == SINCE)
        self.control_plane = ControlPlane(flags)
        self.admin = self.control_plane.admin

    @property
    def protection(self) -> Path:
        return self.folder / "files" / "policies" / "protection.yaml"

    def account(self, name: str) -> Client:
        """Return a client for a service account, NAMESPACE/NAME."""
        user = f"system:serviceaccount:{name.replace('/', ':')}"
        return self.control_plane.user(user, "system:serviceaccounts")

    def kubeconfig(self, client: Client) -> str:
        file = Path(tempfile.mkstemp(dir=self.folder)[1])
        file.write_text(json.dumps(client.kubeconfig()))
        return str(file)

    def start_controllers(self, *, own_credentials: bool) -> None:
        """Run the controllers that delete, under their own names as on a real cluster."""
        manager = self.control_plane.user("system:kube-controller-manager")
        self.control_plane.start_controllers(
            "namespace-controller,garbage-collector-controller",
            f"--use-service-account-credentials={str(own_credentials).lower()}",
            f"--kubeconfig={self.kubeconfig(manager)}",
        )


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Static]:
    running = Static(tmp_path_factory.mktemp("static"))
    try:
        namespace_ready(running.admin)
        let_everyone_do_all(running.admin)
        yield running
    finally:
        running.control_plane.stop()


def let_everyone_do_all(admin: Client) -> None:
    """Bind nodes and service accounts to cluster-admin, so that admission alone is in the way."""
    let_nodes_do_all(admin)
    let_do_all(admin, "Group", "system:serviceaccounts")
    let_do_all(admin, "User", "chief")


def let_do_all(admin: Client, kind: str, name: str) -> None:
    subject = {"kind": kind, "apiGroup": "rbac.authorization.k8s.io", "name": name}
    binding = cluster_role_binding(subject)
    binding["metadata"]["name"], binding["roleRef"]["name"] = f"all-{name}", "cluster-admin"
    admin.create(f"{RBAC}/clusterrolebindings", binding)


def refusal(act: Callable[[], object]) -> str:
    """Return why a request is refused; "" if it is not."""
    try:
        act()
    except APIError as error:
        return str(error)
    return ""


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + NOTICED_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def labelling(node: Client) -> str:
    """Return why a node cannot label itself."""
    return refusal(lambda: node.patch(f"{NODES}/worker?dryRun=All", GUARDED))


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def test_policies_hold_before_the_first_request_whatever_etcd_holds(tmp_path: Path) -> None:
    static = Static(tmp_path)
    try:
        admin, node = static.admin, static.control_plane.node("worker")
        for _ in range(2):
            let_nodes_do_all(admin)
            assert admin.get(POLICIES)["items"] == []
            assert "nodes/own-name" in refusal(lambda: node.create(NODES, node_object("other")))
            node.create(NODES, node_object("worker"))
            assert "nodes/labels" in labelling(node)
            static.control_plane.kill_api_server()
            static.control_plane.empty()
            static.control_plane.start_api_server()
            static.control_plane.wait_ready()
    finally:
        static.control_plane.stop()


def test_no_name_in_the_api_can_be_taken_for_one_of_a_file(static: Static) -> None:
    policy, binding = mirror_pod_policy()
    for path, value in ((POLICIES, policy), (BINDINGS, binding)):
        value["metadata"]["name"] += ".static.k8s.io"
        assert "reserved" in refusal(lambda p=path, v=value: static.admin.create(p, v))  # type: ignore[misc]


@dataclass
class Attempt:
    """A change of something that is ours."""

    method: str
    path: str
    body: Object | None = None

    def by(self, client: Client) -> str:
        """Return why it is refused, "" if it is not; nothing is changed."""
        kind = "application/json"
        if self.method == "PATCH":
            kind = "application/merge-patch+json"
        path = f"{self.path}{'&' if '?' in self.path else '?'}dryRun=All"
        return refusal(lambda: client.request(self.method, path, self.body, kind))


GUARDED: Object = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
LABELS: Object = {"metadata": {"labels": {"a": "b"}}}
SUBJECTS = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "thief"}]


def role_binding(name: str) -> Object:
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a"}
    return {"metadata": {"name": name}, "subjects": SUBJECTS, "roleRef": role}


def attempts() -> dict[str, Attempt]:
    """Return what nobody but administrators and deployers may do."""
    registration, policy, binding = "noderestrict", "noderestrict-mirror-pods", "noderestrict-b"
    found = {
        "weaken the registration": Attempt(
            "PATCH", f"{WEBHOOKS}/{registration}", {"webhooks": []}
        ),
        "label the registration": Attempt("PATCH", f"{WEBHOOKS}/{registration}", LABELS),
        "let the collector have the registration": Attempt(
            "PATCH", f"{WEBHOOKS}/{registration}",
            {"metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "gone"}]}},
        ),
        "delete the registration": Attempt("DELETE", f"{WEBHOOKS}/{registration}"),
        "delete all registrations": Attempt("DELETE", WEBHOOKS),
        "delete all policies": Attempt("DELETE", POLICIES),
        "delete all bindings": Attempt("DELETE", BINDINGS),
        "create a registration": Attempt(
            "POST", WEBHOOKS, {"metadata": {"name": "noderestrict-probe"}}
        ),
        "create one of a name to be made": Attempt(
            "POST", WEBHOOKS, {"metadata": {"generateName": "noderestrict-"}}
        ),
        "create a role in our namespace": Attempt(
            "POST", f"{OURS}/roles", {"metadata": {"name": "any"}, "rules": []}
        ),
        "bind in our namespace": Attempt("POST", f"{OURS}/rolebindings", role_binding("any")),
        "bind elsewhere": Attempt(
            "POST", f"{RBAC}/namespaces/kube-node-lease/rolebindings",
            role_binding("noderestrict-node-leases"),
        ),
        "delete the roles of our namespace": Attempt("DELETE", f"{OURS}/roles"),
        "delete the namespace": Attempt("DELETE", f"{SPACES}/{NAMESPACE}"),
        "create a cluster role": Attempt(
            "POST", f"{RBAC}/clusterroles", {"metadata": {"name": "noderestrict-x"}, "rules": []}
        ),
    }  # fmt: skip
    for path, name in (
        (POLICIES, policy),
        (BINDINGS, binding),
        (f"{RBAC}/clusterroles", "noderestrict"),
        (f"{RBAC}/clusterrolebindings", "noderestrict"),
        (f"{OURS}/roles", "noderestrict"),
        (f"{OURS}/rolebindings", "noderestrict"),
    ):
        what = path.rpartition("/")[2]
        found[f"label one of {what}"] = Attempt("PATCH", f"{path}/{name}", LABELS)
        found[f"delete one of {what}"] = Attempt("DELETE", f"{path}/{name}")
    return found


@pytest.fixture
def installed(static: Static) -> Iterator[Static]:
    """Install an overlay, whose registration lets requests pass, and our policy of the API."""
    built = build("control-plane")
    for one in built:
        for webhook in one.get("webhooks", ()):
            webhook |= {"failurePolicy": "Ignore", "timeoutSeconds": 1}
            webhook["clientConfig"]["caBundle"] = base64.b64encode(authority().certificate).decode()
    built += mirror_pod_policy()
    kubectl(static, static.admin, "apply", built)
    yield static
    kubectl(static, static.admin, "delete", built)
    eventually(lambda: "404" in refusal(lambda: static.admin.get(f"{SPACES}/{NAMESPACE}")))


def kubectl(static: Static, client: Client, verb: str, objects: list[Object]) -> None:
    objects = sorted(objects, key=lambda one: one["kind"] != "Namespace")
    flags = ("--ignore-not-found", "--wait=false") if verb == "delete" else ()
    code, output = static.control_plane.kubectl(
        Path(static.kubeconfig(client)), verb, *flags, "-f", "-", stdin=yaml.safe_dump_all(objects)
    )
    assert code == 0, output


@pytest.fixture(scope="module")
def controllers(static: Static) -> None:
    static.start_controllers(own_credentials=True)


def test_a_stolen_credential_changes_nothing_that_is_ours(
    controllers: None, installed: Static
) -> None:
    binding = mirror_pod_policy()[1]
    binding["metadata"]["name"] = "noderestrict-b"
    installed.admin.create(BINDINGS, binding)
    thieves = {
        "a service account with all rights": installed.account("default/thief"),
        "a node": installed.control_plane.node("worker"),
        "the server": installed.account(f"{NAMESPACE}/noderestrict"),
        "the account that writes the CA": installed.account(WRITER),
        "an account that is called like the deployer": installed.account("ops/deployer2"),
        "the namespace controller": installed.account("kube-system/namespace-controller"),
        "the collector": installed.account("kube-system/generic-garbage-collector"),
    }
    may_delete = {"the namespace controller", "the collector"}
    let_through = [
        (who, what)
        for who, client in thieves.items()
        for what, attempt in attempts().items()
        if PROTECTED not in attempt.by(client)
        and not (who in may_delete and attempt.method == "DELETE")
        # It takes owners away, and may do no more.
        and not (who == "the collector" and what == "let the collector have the registration")
    ]
    assert let_through == []
    for who in may_delete:
        assert attempts()["delete the registration"].by(thieves[who]) == ""
        assert PROTECTED in attempts()["label the registration"].by(thieves[who])
    allowed = {
        "an administrator's group": installed.admin,
        "an administrator": installed.control_plane.user("chief"),
        "the deployer": installed.account(DEPLOYER),
    }
    refused = {
        (who, what): why
        for who, client in allowed.items()
        for what, attempt in attempts().items()
        if PROTECTED in (why := attempt.by(client))
    }
    assert refused == {}
    installed.admin.delete(f"{BINDINGS}/noderestrict-b")


def test_what_is_not_ours_stays_free(installed: Static) -> None:
    thief = installed.account("default/thief")
    others: list[tuple[str, Object]] = [
        (WEBHOOKS, {"metadata": {"name": "noderestricted"}}),
        (f"{RBAC}/clusterroles", {"metadata": {"name": "my-noderestrict"}, "rules": []}),
        (f"{RBAC}/namespaces/default/roles", {"metadata": {"name": "any"}, "rules": []}),
    ]
    for path, value in others:
        thief.create(path, value)
        path += f"/{value['metadata']['name']}"
        thief.patch(path, LABELS)
        thief.delete(path)
    thief.create(SPACES, namespace("noderestrict-tests"))
    thief.patch(f"{SPACES}/noderestrict-tests", LABELS)
    thief.delete(f"{SPACES}/noderestrict-tests")


def changed(value: Object, path: str, new: object) -> Object:
    """Return a copy of an object with another value at a path, None to take it away."""
    value = json.loads(json.dumps(value))
    *steps, last = [int(one) if one.isdigit() else one for one in path.split(".")]
    at: Any = value
    for step in steps:
        at = at[step]
    if new is None:
        del at[last]
    else:
        at[last] = new
    return value


def test_the_account_that_writes_the_ca_writes_nothing_else(installed: Static) -> None:
    writer, path = installed.account(WRITER), f"{WEBHOOKS}/noderestrict"
    before = installed.admin.get(path)
    other = base64.b64encode(authority().certificate).decode()
    with_ca = changed(before, "webhooks.0.clientConfig.caBundle", other)
    dry = f"{path}?dryRun=All"
    writer.request("PUT", dry, with_ca)
    writer.request("PUT", dry, changed(before, "webhooks.0.clientConfig.caBundle", None))
    operation = {"op": "replace", "path": "/webhooks/3/clientConfig/caBundle", "value": other}
    writer.request("PATCH", dry, [operation], "application/json-patch+json")  # type: ignore[arg-type]
    first: Object = before["webhooks"][0]
    others: dict[str, tuple[str, Any]] = {
        "label": ("metadata.labels.a", "b"),
        "annotation": ("metadata.annotations.a", "b"),
        "finalizer": ("metadata.finalizers", ["a/b"]),
        "owner": (
            "metadata.ownerReferences",
            [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}],
        ),
        "URL": ("webhooks.0.clientConfig.url", "https://thief/validate"),
        "failure policy": ("webhooks.0.failurePolicy", "Fail"),
        "timeout": ("webhooks.0.timeoutSeconds", 30),
        "match policy": ("webhooks.0.matchPolicy", "Exact"),
        "rules": ("webhooks.0.rules.0.operations", ["CONNECT"]),
        "fewer rules": ("webhooks.0.rules", first["rules"][:0]),
        "namespaces": ("webhooks.0.namespaceSelector", {"matchLabels": {"a": "b"}}),
        "objects": ("webhooks.0.objectSelector", {"matchLabels": {"a": "b"}}),
        "conditions": (
            "webhooks.0.matchConditions",
            [*first["matchConditions"], {"name": "never", "expression": "false"}],
        ),
        "a condition": ("webhooks.0.matchConditions.0.expression", "false"),
        "no conditions": ("webhooks.0.matchConditions", None),
        "versions": ("webhooks.0.admissionReviewVersions", ["v1", "v1beta1"]),
        "side effects": ("webhooks.0.sideEffects", "NoneOnDryRun"),
        "name": ("webhooks.0.name", "others.noderestrict.io"),
        "no webhooks": ("webhooks", []),
        "one webhook less": ("webhooks", before["webhooks"][1:]),
        "one webhook more": ("webhooks", [*before["webhooks"], {**first, "name": "a.b.io"}]),
        "another in its place": (
            "webhooks",
            [*before["webhooks"][1:], {**before["webhooks"][1], "name": "a.b.io"}],
        ),
    }
    service = {"url": None, "service": {"name": "a", "namespace": "b"}, "caBundle": other}
    others["a Service"] = ("webhooks.0.clientConfig", service)
    for start in (before, with_ca):
        let_through = [
            what
            for what, (at, new) in others.items()
            if PROTECTED
            not in refusal(
                lambda at=at, new=new: writer.request("PUT", dry, changed(start, at, new))  # type: ignore[misc] # noqa: B023
            )
        ]
        assert let_through == []
    # Nor the CA of anybody else's registration with our name, nor what it may not by RBAC.
    assert installed.admin.get(path)["webhooks"] == before["webhooks"]


@pytest.mark.parametrize("own_credentials", [True, False])
def test_the_ca_is_rotated_and_all_of_it_upgraded_and_uninstalled(
    tmp_path: Path, own_credentials: bool
) -> None:
    static = Static(tmp_path)
    try:
        namespace_ready(static.admin)
        let_everyone_do_all(static.admin)
        if not own_credentials:
            let_do_all(static.admin, "User", "system:kube-controller-manager")
        static.start_controllers(own_credentials=own_credentials)
        deployer, writer = (static.kubeconfig(static.account(one)) for one in (DEPLOYER, WRITER))
        install, enforce = (build("control-plane", parts=[part]) for part in ("install", "enforce"))
        file = tmp_path / "registration.yaml"
        file.write_text(FILES["overlays/control-plane/enforce/registration.yaml"])
        places = ("--secret", f"{NAMESPACE}/{TLS_SECRET}", "--ca-secret",
                  f"{NAMESPACE}/{CA_SECRET}", "--dns-names", "127.0.0.1")  # fmt: skip

        def certs(kubeconfig: str, *flags: str) -> None:
            assert main(["certs", *flags, *places, "--kubeconfig", kubeconfig]) == 0

        kubectl(static, static.account(DEPLOYER), "apply", install)
        certs(deployer, "bootstrap", "--unserved", "--registration", str(file))

        def bundles() -> set[str]:
            webhooks = static.admin.get(f"{WEBHOOKS}/noderestrict")["webhooks"]
            return {one["clientConfig"]["caBundle"] for one in webhooks}

        before = bundles()
        certs(writer, "rotate", "--webhook-configuration", "noderestrict")
        assert bundles() != before
        for one in [*install, *enforce]:
            one["metadata"]["labels"] = {**one["metadata"].get("labels", {}), "version": "next"}
        (role,) = [one for one in install if one["kind"] == "ClusterRole"]
        role["rules"] = role["rules"][1:]
        kubectl(static, static.account(DEPLOYER), "apply", install)
        upgraded = static.admin.get(f"{RBAC}/clusterroles/{role['metadata']['name']}")
        assert upgraded["rules"] == role["rules"]
        assert upgraded["metadata"]["labels"]["version"] == "next"
        file.write_text(yaml.safe_dump_all(enforce))
        certs(deployer, "bootstrap", "--unserved", "--registration", str(file))
        written = static.admin.get(f"{WEBHOOKS}/noderestrict")
        assert written["metadata"]["labels"]["version"] == "next"
        client = static.account(DEPLOYER)
        client.delete(f"{WEBHOOKS}/noderestrict")
        kubectl(static, client, "delete", install)
        eventually(lambda: "404" in refusal(lambda: client.get(f"{SPACES}/{NAMESPACE}")))
        left = [
            one["metadata"]["name"]
            for kind in ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
            for one in static.admin.get(f"{RBAC}/{kind}")["items"]
        ]
        assert not [name for name in left if name.startswith("noderestrict")]
    finally:
        static.control_plane.stop()


def replace(file: Path, text: str) -> None:
    """Write a file at once: an API server that reads it while it is empty has no policies."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_only_the_files_open_it_and_a_bad_file_changes_nothing(static: Static) -> None:
    thief, attempt = static.account("default/thief"), attempts()["create a registration"]
    assert PROTECTED in attempt.by(thief)
    text = static.protection.read_text()
    log = static.control_plane.folder / "kube-apiserver.log"
    failures = log.read_text().count("reloading manifest config")
    replace(static.protection, text.replace(f"name: {POLICY}.static.k8s.io", "name: any"))
    eventually(lambda: log.read_text().count("reloading manifest config") > failures)
    assert PROTECTED in attempt.by(thief)
    static.protection.unlink()
    eventually(lambda: attempt.by(thief) == "")
    replace(static.protection, text)
    eventually(lambda: PROTECTED in attempt.by(thief))


def test_a_registration_from_a_file_asks_the_webhook_on_an_empty_etcd(tmp_path: Path) -> None:
    port, ca = free_port(), authority()
    static = Static(tmp_path, webhook=port, ca=ca.certificate)
    try:
        admin, node = static.admin, static.control_plane.node("worker")
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
        let_nodes_do_all(admin)
        namespace_ready(admin)
        admin.create(NODES, node_object("worker"))
        accounts = f"{SPACES}/default/serviceaccounts"
        admin.create(accounts, {"metadata": {"name": "web"}})

        def token() -> str:
            """Return why a node gets no token that is bound to no pod: no policy can tell."""
            return refusal(lambda: node.create(f"{accounts}/web/token", TOKEN_REQUEST))

        # Nobody serves, and nobody gets past.
        assert "failed calling webhook" in token()
        assert "nodes/labels" in labelling(node)
        kubeconfig = static.kubeconfig(static.control_plane.user(USER))
        (tmp_path / "serving").mkdir()
        with serving(
            tmp_path / "serving", "--kubeconfig", kubeconfig, "--api-audiences", ISSUER,
            "--port", str(port), ca=ca, state=False,
        ) as server:  # fmt: skip
            eventually(lambda: server.request("/readyz")[0] == 200)
            assert "denied the request" in token()
        assert admin.get(WEBHOOKS)["items"] == []
    finally:
        static.control_plane.stop()
