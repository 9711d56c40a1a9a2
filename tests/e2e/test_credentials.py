"""With the credential of a real node: what our Secrets, tokens and rights would give a thief."""

import base64
import contextlib
import copy
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.pki.issue import Authority
from noderestrict.render.manifests import Options, manifests
from noderestrict.render.registration import Registration
from noderestrict.render.workload import CA_SECRET, NAMESPACE, NEW_CA, RENEWAL, TLS_SECRET
from tests.doctor.test_registration import CHANGES, EXPECTED, EXTRA
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import APIError, Client, ControlPlane, free_port
from tests.e2e.test_registration import LEASES, WEBHOOKS, lease, until_refused
from tests.render.overlays import FILES, OVERLAYS, build
from tests.render.test_credentials import NODES, fits, templates
from tests.serving.tls import DAY, NOW, serving

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
SPACE = f"/api/v1/namespaces/{NAMESPACE}"
SERVER, REGISTRATION = "noderestrict", f"{WEBHOOKS}/noderestrict"
FOREIGN_KINDS = ("Certificate", "Issuer")
PLACES = (f"--secret={NAMESPACE}/{TLS_SECRET}", f"--ca-secret={NAMESPACE}/{CA_SECRET}",
          "--dns-names=127.0.0.1,localhost")  # fmt: skip
TOKEN_REQUEST: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                         "spec": {}}  # fmt: skip


#: What the namespace lets in.
HARMLESS: Object = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "c",
            "image": "c",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
}


class Installed:
    """A cluster with the Node authorizer, in which an overlay is installed."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self.control_plane = control_plane
        self.admin = control_plane.admin
        self.folder = folder
        self.nodes = {name: control_plane.node(name) for name in NODES}
        self.kubeconfig = folder / "admin"
        self.kubeconfig.write_text(json.dumps(self.admin.kubeconfig()))

    def apply(self, objects: list[Object]) -> None:
        # As kustomize sorts them: the namespace before what is in it.
        objects = sorted(objects, key=lambda one: one["kind"] != "Namespace")
        code, output = self.control_plane.kubectl(
            self.kubeconfig, "apply", "-f", "-", stdin=yaml.safe_dump_all(objects)
        )
        assert code == 0, output

    def install(self, overlay: str) -> list[Object]:
        """Apply an overlay, with a registration that lets requests pass, and return it."""
        built = [one for one in build(overlay) if one["kind"] not in FOREIGN_KINDS]
        for one in built:
            for webhook in one.get("webhooks", ()):
                webhook |= {"failurePolicy": "Ignore", "timeoutSeconds": 1,
                            "clientConfig": {"url": "https://127.0.0.1:1/"}}  # fmt: skip
        self.apply(built)
        return built

    def run(self, objects: list[Object], phase: str = "Running") -> list[Object]:
        """Create a pod of every workload on every node that the scheduler may choose."""
        pods = []
        for name, template in templates(objects):
            for node in NODES:
                if not fits(template["spec"], node):
                    continue
                spec = copy.deepcopy(template["spec"])
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-{node}"},
                       "spec": {**spec, "nodeName": node}}  # fmt: skip
                pods.append(self.admin.create(f"{SPACE}/pods", pod))
                self.admin.patch(f"{SPACE}/pods/{name}-{node}/status", {"status": {"phase": phase}})
        return pods

    def names(self, plural: str) -> list[str]:
        return [one["metadata"]["name"] for one in self.admin.get(f"{SPACE}/{plural}")["items"]]

    def data(self, secret: str, client: Client | None = None) -> dict[str, bytes]:
        value = (client or self.admin).get(f"{SPACE}/secrets/{secret}")
        return {key: base64.b64decode(text) for key, text in (value.get("data") or {}).items()}

    def as_token(self, token: str, method: str, path: str, body: Object | None = None) -> int:
        """Return the status of a request with a bearer token."""
        context = ssl.create_default_context(cadata=self.control_plane.ca.certificate.decode())
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.control_plane.port, context=context, timeout=40
        )
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        status = connection.getresponse().status
        connection.close()
        return status

    def token_kubeconfig(self, token: str) -> Path:
        value = self.admin.kubeconfig()
        value["users"][0]["user"] = {"token": token}
        file = self.folder / "token"
        file.write_text(json.dumps(value))
        return file


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    control_plane = ControlPlane()
    try:
        namespace_ready(control_plane.admin)
        control_plane.start_controllers("serviceaccount-token-controller")
        installed = Installed(control_plane, tmp_path_factory.mktemp("credentials"))
        for name, (labels, _) in NODES.items():
            installed.admin.create(
                "/api/v1/nodes",
                {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}},
            )
        yield installed
    finally:
        control_plane.stop()


@pytest.fixture
def tidy(cluster: Installed) -> Iterator[Installed]:
    """Return the cluster, and remove what it runs and keeps afterwards."""
    yield cluster
    for pod in cluster.names("pods"):
        cluster.admin.delete(f"{SPACE}/pods/{pod}")
    for secret in cluster.names("secrets"):
        cluster.admin.delete(f"{SPACE}/secrets/{secret}")
    with contextlib.suppress(APIError):
        cluster.admin.delete(REGISTRATION)


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(APIError) as error:
        act()
    assert error.value.code == 403, error.value
    return str(error.value)


def bound(pod: Object, seconds: int = 600) -> Object:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"],
                 "uid": pod["metadata"]["uid"]}  # fmt: skip
    spec = {"boundObjectRef": reference, "expirationSeconds": seconds}
    return {**TOKEN_REQUEST, "spec": spec}


def taken(cluster: Installed, node: str, pods: list[Object]) -> tuple[set[str], dict[str, str]]:
    """Return the Secrets that a node reads, and every token that it gets, by what gave it."""
    client = cluster.nodes[node]
    secrets, tokens = set(), {}
    for name in cluster.names("secrets"):
        with contextlib.suppress(APIError):
            data = cluster.data(name, client)
            secrets.add(name)
            if "token" in data:
                tokens[f"secret {name}"] = data["token"].decode()
    for account in cluster.names("serviceaccounts"):
        path = f"{SPACE}/serviceaccounts/{account}/token"
        for request in (TOKEN_REQUEST, *map(bound, pods)):
            with contextlib.suppress(APIError):
                value = client.create(path, request)
                pod = request["spec"].get("boundObjectRef", {}).get("name", "")
                tokens[f"request {account} {pod}"] = value["status"]["token"]
    return secrets, tokens


def harm(cluster: Installed, token: str) -> set[str]:
    """Return what a token may do of all that would undo the rules, without doing it."""
    dry = "?dryRun=All"
    of = {"kubernetes.io/service-account.name": SERVER}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
              "metadata": {"name": "stolen", "annotations": of}}  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stolen"},
           "spec": {"containers": [{"name": "c", "image": "c"}]}}  # fmt: skip
    selector = {"webhooks": [], "metadata": {"labels": {"a": "b"}}}
    attempts: dict[str, tuple[str, str, Object | None]] = {
        "patch registration": ("PATCH", f"{REGISTRATION}{dry}", selector),
        "replace registration": ("PUT", f"{REGISTRATION}{dry}", EXPECTED),
        "delete registration": ("DELETE", f"{REGISTRATION}{dry}", None),
        "create registration": ("POST", f"{WEBHOOKS}{dry}", EXPECTED),
        "create secret": ("POST", f"{SPACE}/secrets{dry}", secret),
        "list secrets": ("GET", f"{SPACE}/secrets", None),
        "read ca": ("GET", f"{SPACE}/secrets/{CA_SECRET}", None),
        "write ca": ("PATCH", f"{SPACE}/secrets/{CA_SECRET}{dry}", {"metadata": {}}),
        "create pod": ("POST", f"{SPACE}/pods{dry}", pod),
        "create token": ("POST", f"{SPACE}/serviceaccounts/{SERVER}/token", TOKEN_REQUEST),
        "bind role": (
            "PATCH",
            f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/noderestrict{dry}",
            {"metadata": {"labels": {"a": "b"}}},
        ),
        "label node": ("PATCH", f"/api/v1/nodes/worker{dry}", {"metadata": {"labels": {"a": "b"}}}),
    }
    return {
        name
        for name, (method, path, body) in attempts.items()
        if cluster.as_token(token, method, path, body) not in (401, 403)
    }


def filled(cluster: Installed) -> None:
    """Make the certificate, where the cluster has a place for it, and wait for tokens."""
    assert main(["certs", "bootstrap", *PLACES, "--kubeconfig", str(cluster.kubeconfig)]) == 0
    tokens = [name for name in cluster.names("secrets") if name.endswith("-token")]
    assert tokens
    until(lambda: all("token" in cluster.data(name) for name in tokens))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_node_can_take_what_undoes_the_rules(tidy: Installed, overlay: str) -> None:
    built = tidy.install(overlay)
    filled(tidy)
    # Finished pods count, too.
    pods = tidy.run(built, "Succeeded")
    for node in ("worker", "dedicated"):
        assert taken(tidy, node, pods) == (set(), {})
        refused(lambda node=node: tidy.nodes[node].get(f"{SPACE}/secrets"))  # type: ignore[misc]
        refused(lambda node=node: tidy.nodes[node].patch(REGISTRATION, {"webhooks": []}))  # type: ignore[misc]
    if overlay == "audit":
        # Which made itself a trusted node while it could.
        _, tokens = taken(tidy, "liar", pods)
        assert not any(harm(tidy, token) for token in tokens.values())
    secrets, tokens = taken(tidy, "control-plane", pods)
    # The walk does find what is there.
    assert {f"{SERVER}-token", TLS_SECRET} <= secrets
    assert CA_SECRET not in secrets
    assert tokens
    for source, token in tokens.items():
        renews = RENEWAL in source
        assert harm(tidy, token) == ({"read ca"} if renews else set()), source
        path = f"{SPACE}/secrets/{TLS_SECRET}?dryRun=All"
        value = tidy.admin.get(f"{SPACE}/secrets/{TLS_SECRET}")
        assert (tidy.as_token(token, "PUT", path, value) == 200) is renews


def test_the_walk_finds_what_the_old_manifests_gave(tidy: Installed) -> None:
    """A token that never ends, of an account that may change the registration, on any node."""
    built = tidy.install("self-signed")
    old = copy.deepcopy([one for one in built if RENEWAL in str(one["metadata"]["name"])])
    for one in old:
        if one["kind"] == "Role":
            one["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]})
        elif one["kind"] == "CronJob":
            del one["spec"]["jobTemplate"]["spec"]["template"]["spec"]["affinity"]
    tidy.apply(old)
    filled(tidy)
    try:
        secrets, tokens = taken(tidy, "worker", tidy.run(old, "Succeeded"))
        assert f"{RENEWAL}-token" in secrets
        assert "create secret" in harm(tidy, tokens[f"secret {RENEWAL}-token"])
    finally:
        tidy.install("self-signed")


def test_no_node_adds_a_pod_to_our_service(tidy: Installed) -> None:
    tidy.install("self-signed")
    policy = [one for one in yaml.safe_load_all(FILES["components/mirror-pods/policy.yaml"]) if one]
    node = tidy.admin.get("/api/v1/nodes/worker")["metadata"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": "worker", "uid": node["uid"],
             "controller": True}  # fmt: skip
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "joined",
            "labels": {"app.kubernetes.io/name": SERVER},
            "annotations": {"kubernetes.io/config.mirror": "a"},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "worker", **HARMLESS},
    }
    worker, dry = tidy.nodes["worker"], "?dryRun=All"
    # A mirror pod as any, which the in-tree plugin does not refuse either.
    worker.create(f"{SPACE}/pods{dry}", pod)
    tidy.apply(policy)
    try:

        def held() -> bool:
            try:
                worker.create(f"{SPACE}/pods{dry}", pod)
            except APIError as error:
                return "nodes cannot create pods in namespace" in str(error)
            return False

        until(held)
        worker.create(f"/api/v1/namespaces/default/pods{dry}", pod)
        tidy.admin.create(f"{SPACE}/pods{dry}", pod)
    finally:
        tidy.control_plane.kubectl(
            tidy.kubeconfig, "delete", "-f", "-", stdin=yaml.safe_dump_all(policy)
        )


def test_what_changes_the_ca_is_gone_with_its_pod(tidy: Installed) -> None:
    tidy.install("self-signed")
    filled(tidy)
    objects = [one for one in yaml.safe_load_all(FILES["overlays/self-signed/new-ca.yaml"]) if one]
    before = set(tidy.names("secrets"))
    tidy.apply(objects)
    pods = tidy.run(objects)
    try:
        assert set(tidy.names("secrets")) == before
        assert taken(tidy, "worker", pods) == (set(), {})
        (pod,) = [one for one in pods if one["spec"]["nodeName"] == "control-plane"]
        value = tidy.nodes["control-plane"].create(
            f"{SPACE}/serviceaccounts/{NEW_CA}/token", bound(pod)
        )
        token = value["status"]["token"]
        assert harm(tidy, token) == {"patch registration", "read ca"}
        for one in pods:
            tidy.admin.delete(f"{SPACE}/pods/{one['metadata']['name']}")
        until(lambda: tidy.as_token(token, "GET", REGISTRATION) == 401)
        with pytest.raises(APIError):
            tidy.nodes["control-plane"].create(
                f"{SPACE}/serviceaccounts/{NEW_CA}/token", bound(pod)
            )
    finally:
        tidy.control_plane.kubectl(
            tidy.kubeconfig, "delete", "--wait=false", "-f", "-", stdin=yaml.safe_dump_all(objects)
        )


def test_from_zero_replicas_with_an_expired_certificate(tidy: Installed) -> None:
    built = tidy.install("self-signed")
    filled(tidy)
    kept = tidy.data(CA_SECRET)
    trusted, port = tidy.nodes["control-plane"], free_port()
    names = ("127.0.0.1", "localhost")
    ca = Authority(kept["tls.crt"], kept["tls.key"])
    old = ca.issue(names, lifetime=DAY, now=NOW - 2 * DAY)
    value = tidy.admin.get(f"{SPACE}/secrets/{TLS_SECRET}")
    pair = {"tls.crt": old.certificate, "tls.key": old.key}
    value["data"] |= {key: base64.b64encode(data).decode() for key, data in pair.items()}
    tidy.admin.request("PUT", f"{SPACE}/secrets/{TLS_SECRET}", value)
    registration = Registration({"url": f"https://127.0.0.1:{port}/validate"}).value(EXTRA)
    file = tidy.folder / "registration.yaml"
    file.write_text(yaml.safe_dump(registration))
    flags = ("--kubeconfig", str(tidy.kubeconfig))
    written = ("--registration", str(file), "--unserved", "--renew-before", "1")
    # Only the registration is written here: the certificate stays as it is until the job comes.
    tidy.admin.delete(REGISTRATION)
    expired = copy.deepcopy(registration)
    for webhook in expired["webhooks"]:
        webhook["clientConfig"]["caBundle"] = base64.b64encode(kept["tls.crt"]).decode()
    tidy.admin.create(WEBHOOKS, expired)
    pods = {one["metadata"]["name"]: one for one in tidy.run(built, "Pending")}
    job = pods[f"{RENEWAL}-control-plane"]

    def away() -> bool:
        try:
            trusted.create(f"{SPACE}/serviceaccounts/{RENEWAL}/token", bound(job))
        except APIError as error:
            return "noderestrict.io" in str(error)
        return False

    # A token that the kubelet had to ask for would wait for the webhook, and this for it.
    until(away)
    # What the kubelet needs to run the job, it reads; what it reports, nobody is asked about.
    token = tidy.data(f"{RENEWAL}-token", trusted)["token"].decode()
    status = f"{SPACE}/pods/{job['metadata']['name']}/status"
    trusted.patch(status, {"status": {"phase": "Running"}})
    assert main(["certs", "renew", *PLACES, "--kubeconfig",
                 str(tidy.token_kubeconfig(token))]) == 0  # fmt: skip
    trusted.patch(status, {"status": {"phase": "Succeeded"}})
    folder = tidy.folder / "tls"
    folder.mkdir()
    for name, data in tidy.data(TLS_SECRET, trusted).items():
        (folder / name).write_bytes(data)
    server = tidy.data(f"{SERVER}-token", trusted)["token"].decode()
    with serving(
        folder, "--kubeconfig", str(tidy.token_kubeconfig(server)), "--port", str(port),
        ca=ca, state=False,
    ) as webhook:  # fmt: skip
        until(lambda: webhook.request("/readyz")[0] == 200)
        until_refused(tidy.nodes["worker"])
        # It answers about tokens, too: the job has its own, and asks for none.
        message = refused(
            lambda: trusted.create(f"{SPACE}/serviceaccounts/{RENEWAL}/token", bound(job))
        )
        assert "does not ask for audience" in message
    # The operator's command finds nothing to renew, and the registration as it was.
    assert main(["certs", "bootstrap", *PLACES, *written, *flags]) == 0
    assert (
        registration_differences(tidy.admin.get(REGISTRATION), registration, kept["tls.crt"]) == []
    )


def test_a_change_is_told_by_a_running_server_within_a_minute(tidy: Installed) -> None:
    tidy.install("self-signed")
    filled(tidy)
    kept, port, folder = tidy.data(CA_SECRET), free_port(), tidy.folder / "watched"
    folder.mkdir()
    for name, data in tidy.data(TLS_SECRET).items():
        (folder / name).write_bytes(data)
    registration = Registration({"url": f"https://127.0.0.1:{port}/validate"})
    file = folder / "registration.yaml"
    file.write_text(yaml.safe_dump(registration.value(EXTRA)))
    bootstrap = ["certs", "bootstrap", *PLACES, "--unserved", "--registration", str(file),
                 "--kubeconfig", str(tidy.kubeconfig)]  # fmt: skip
    assert main(bootstrap) == 0
    token = tidy.data(f"{SERVER}-token")["token"].decode()
    with serving(
        folder, "--kubeconfig", str(tidy.token_kubeconfig(token)), "--port", str(port),
        registration.flag(), ca=Authority(kept["tls.crt"], kept["tls.key"]), state=False,
    ) as webhook:  # fmt: skip

        def told() -> bool:
            return "noderestrict_registration_differences 0.0" not in webhook.metrics()

        until_refused(tidy.nodes["worker"])
        until(lambda: not told())
        value = tidy.admin.get(REGISTRATION)
        for one in value["webhooks"]:
            CHANGES["object selector"]({"webhooks": [one]})
        tidy.admin.request("PUT", REGISTRATION, value)
        # Every rule is off, and the server says so.

        def passes() -> bool:
            with contextlib.suppress(APIError):
                tidy.nodes["worker"].create(f"{LEASES}?dryRun=All", lease("other"))
                return True
            return False

        until(passes)
        until(told, 60)
        (line,) = webhook.wait_for_log("differs from the rendered one")
        assert "objectSelector" in line
        assert main(bootstrap) == 0
        until_refused(tidy.nodes["worker"])


def test_what_somebody_changed_is_put_back(tidy: Installed) -> None:
    """By an apply, but for what an apply never sees; by the operator's two commands, all of it."""
    tidy.install("self-signed")
    filled(tidy)
    options = Options(ca_bundle=tidy.data(CA_SECRET)["tls.crt"])
    expected = options.service().value(EXTRA)
    file = tidy.folder / "registration.yaml"
    file.write_text(manifests(options)["overlays/self-signed/enforce/registration.yaml"])
    webhook = str(file)
    bootstrap = ["certs", "bootstrap", *PLACES, "--unserved", "--registration", webhook,
                 "--kubeconfig", str(tidy.kubeconfig)]  # fmt: skip

    def apply() -> None:
        code, output = tidy.control_plane.kubectl(tidy.kubeconfig, "apply", "-f", webhook)
        assert code == 0, output

    apply()
    assert main(bootstrap) == 0
    ca = tidy.data(CA_SECRET)["tls.crt"]
    left = set()
    for name, change in CHANGES.items():
        value = tidy.admin.get(REGISTRATION)
        change(value)
        if name == "another address":
            value["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(ca).decode()
        try:
            tidy.admin.request("PUT", REGISTRATION, value)
        except APIError:
            assert name == "no PEM"
            continue
        seen = registration_differences(tidy.admin.get(REGISTRATION), expected, ca)
        # An API server drops fields that it does not know.
        assert bool(seen) is (name != "a field that is not known yet"), name
        apply()
        if registration_differences(tidy.admin.get(REGISTRATION), expected, ca):
            left.add(name)
        assert main(bootstrap) == 0
        assert registration_differences(tidy.admin.get(REGISTRATION), expected, ca) == [], name
    assert left == {"a condition more", "a webhook more", "another name"}
