"""Two API servers over one etcd: one asks our webhooks, the other has the in-tree plugins.

The same question to both must get the same verdict.
"""

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from noderestrict.render.authorizer import authorization_configuration, webhook_kubeconfig
from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import ISSUER, Client, ControlPlane, free_port
from tests.e2e.proxy import Network
from tests.serving.tls import Server, leaf, serving, write_pair

NAMES = ("n1", "n2")
MERGE = "application/merge-patch+json"
JSON = "application/json"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NODES, NAMESPACED = "/api/v1/nodes", "/api/v1/namespaces/default"
PODS, CLAIMS = f"{NAMESPACED}/pods", f"{NAMESPACED}/persistentvolumeclaims"
SECRETS = f"{NAMESPACED}/secrets"
#: Of both API servers; the issuer is none of them.
AUDIENCES = ("api.example.com", "second.example.com")
#: Of our server, unless a test lets it find out for itself.
FLAGS = ("--api-audiences", ",".join(AUDIENCES))
#: How long after an attack, and after a change, our verdicts may differ, seconds.
GRACE = 5.0


class Question(NamedTuple):
    """A request of a node that changes nothing."""

    node: str
    method: str
    path: str
    body: bytes | None = None
    content_type: str = JSON

    def __str__(self) -> str:
        return f"{self.node}: {self.method} {self.path} {(self.body or b'')[:100].decode()}"


class Verdicts(NamedTuple):
    """What both API servers answered."""

    question: Question
    in_tree: str
    ours: str

    def __str__(self) -> str:
        return f"{self.question}: in-tree {self.in_tree}, ours {self.ours}"


def question(node: str, method: str, path: str, body: object = None) -> Question:
    data = None if body is None else json.dumps(body).encode()
    return Question(node, method, path, data, MERGE if method == "PATCH" else JSON)


def pod(name: str, node: str) -> dict[str, Any]:
    """Return a pod with a Secret and a claim of its name."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "web",
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "pause"}],
            "volumes": [
                {"name": "s", "secret": {"secretName": name}},
                {"name": "c", "persistentVolumeClaim": {"claimName": name}},
                {
                    "name": "t",
                    "projected": {
                        "sources": [
                            {"serviceAccountToken": {"path": "t"}},
                            {"serviceAccountToken": {"path": "v", "audience": "vault"}},
                        ]
                    },
                },
            ],
        },
    }


def claim(name: str, **spec: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            **spec,
        },
    }


def legacy_token(control_plane: ControlPlane, account: str) -> str:
    """Return a token that never ends and has no audience, as one in a mounted Secret."""
    admin = control_plane.admin
    path = f"{NAMESPACED}/serviceaccounts"
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
    uid = admin.create(path, body)["metadata"]["uid"]
    prefix = "kubernetes.io/serviceaccount"
    claims = {
        "iss": "kubernetes/serviceaccount",
        f"{prefix}/namespace": "default",
        f"{prefix}/secret.name": f"{account}-token",
        f"{prefix}/service-account.name": account,
        f"{prefix}/service-account.uid": uid,
        "sub": f"system:serviceaccount:default:{account}",
    }

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = encoded(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
    signed = f"{head}.{encoded(json.dumps(claims).encode())}"
    key = serialization.load_pem_private_key((control_plane.folder / "sa.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    token = f"{signed}.{encoded(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
    admin.create(
        SECRETS,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": f"{prefix}-token",
            "metadata": {
                "name": f"{account}-token",
                "annotations": {f"{prefix}.name": account, f"{prefix}.uid": uid},
            },
            "stringData": {"token": token},
        },
    )
    return token


class Twins:
    """Both API servers, and our server, which is cut off from its API server at will."""

    network: Network
    server: Server
    #: Of the replica that was started last.
    replica_folder: Path

    def __init__(self, folder: Path, flags: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        config, webhook, ca = (folder / name for name in ("authorization", "webhook", "ca.crt"))
        config.write_text(yaml.safe_dump(authorization_configuration(str(webhook))))
        url = f"https://127.0.0.1:{self.port}/authorize"
        webhook.write_text(yaml.safe_dump(webhook_kubeconfig(url, str(ca))))
        self.control_plane = ControlPlane(
            {
                "authorization-mode": "",
                "authorization-config": str(config),
                "api-audiences": ",".join(AUDIENCES),
                # Objects are gone when they are deleted.
                "disable-admission-plugins": "ServiceAccount,StorageObjectInUseProtection",
                **(flags or {}),
            },
            ca_file=ca,
        )
        self.admin = self.control_plane.admin
        self._in_tree_port = self.control_plane.start_in_tree()
        self._clients: dict[tuple[str, bool, int], Client] = {}
        self._flags: tuple[str, ...] = ()
        self._serving = contextlib.ExitStack()
        self._replicas = 0

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, *flags: str) -> Iterator["Twins"]:
        """Run all; flags are those of our server, which is ready and asked."""
        twins = cls(folder)
        try:
            twins._set_up()
            with Network.between(twins.control_plane.port) as twins.network, twins._serving:
                twins._flags = flags
                twins.serve(*flags)
                twins.admin.create(WEBHOOKS, twins._registration(twins.server))
                twins.start("first", "n1")
                twins.settles("first", seconds=60)
                yield twins
        finally:
            twins.control_plane.stop()

    def _set_up(self) -> None:
        admin = self.admin
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        subject = {"kind": "ServiceAccount", "namespace": "default", "name": "noderestrict"}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(subject))
        namespace_ready(admin)
        for name in ("default", "kube-node-lease"):
            with contextlib.suppress(Exception):
                admin.create(
                    "/api/v1/namespaces",
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
                )
        self._token = legacy_token(self.control_plane, "noderestrict")
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}}
        admin.create(f"{NAMESPACED}/serviceaccounts", body)
        for name in NAMES:
            admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})

    def _registration(self, server: Server) -> dict[str, Any]:
        bundle = base64.b64encode(self.control_plane.ca.certificate).decode()
        url = f"https://127.0.0.1:{server.port}/validate"
        return webhook_configuration({"url": url, "caBundle": bundle})

    @contextlib.contextmanager
    def asking(self, server: Server) -> Iterator[None]:
        """Let the API server ask another server of ours, for admission."""
        self._ask(server)
        try:
            yield
        finally:
            self._ask(self.server)

    def _ask(self, server: Server) -> None:
        configuration = self._registration(server)
        path = f"{WEBHOOKS}/{configuration['metadata']['name']}"
        self.admin.patch(path, {"webhooks": configuration["webhooks"]})

    @contextlib.contextmanager
    def replica(self, *flags: str, port: int = 0, **options: Any) -> Iterator[Server]:
        """Run a server of ours, behind the network; options are those of ``serving``."""
        self._replicas += 1
        folder = self.replica_folder = self.folder / f"replica-{self._replicas}"
        folder.mkdir()
        write_pair(folder, leaf(self.control_plane.ca))
        kubeconfig = self.admin.kubeconfig(self.network.port)
        kubeconfig["users"][0]["user"] = {"token": self._token}
        (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
        with serving(
            folder, "--kubeconfig", str(folder / "kubeconfig"), "--authorizer",
            "--port", str(port), *flags,
            ca=self.control_plane.ca, state=False, **options,
        ) as server:  # fmt: skip
            yield server

    def serve(self, *flags: str, **options: Any) -> None:
        """Run the server that the API server asks, in place of the one before."""
        self._serving.close()
        replica = self.replica(*flags, port=self.port, **options)
        self.server = self._serving.enter_context(replica)
        self.until_ready(self.server)

    @contextlib.contextmanager
    def instead(self, *flags: str, **options: Any) -> Iterator[None]:
        """Let the API server ask a server with other flags or options, for a while."""
        self.serve(*flags, **options)
        try:
            yield
        finally:
            self.serve(*self._flags)

    def until_ready(self, server: Server, seconds: float = 30) -> None:
        until("the server is ready", lambda: server.request("/readyz")[0] == 200, seconds)

    def client(self, node: str, *, in_tree: bool = False, number: int = 0) -> Client:
        """Return a node's client of one of the API servers; each number has its own."""
        key = (node, in_tree, number)
        if key not in self._clients:
            port = self._in_tree_port if in_tree else None
            self._clients[key] = self.control_plane.node(node, port)
        return self._clients[key]

    def start(self, name: str, node: str, own_claim: dict[str, Any] | None = None) -> None:
        """Make a pod with a Secret and a claim of its name."""
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        self.admin.create(SECRETS, body)
        self.admin.create(CLAIMS, own_claim or claim(name))
        self.admin.create(PODS, pod(name, node))

    def remove(self, name: str) -> None:
        """Delete a pod with its Secret and claim."""
        for path in (PODS, CLAIMS, SECRETS):
            self.admin.send("DELETE", f"{path}/{name}?gracePeriodSeconds=0")

    def move(self, name: str, node: str) -> None:
        """Let a pod of the same name run on another node."""
        self.admin.delete(f"{PODS}/{name}")
        self.admin.create(PODS, pod(name, node))

    def questions(self, name: str) -> list[Question]:
        """Return what each node may want of a pod, and of itself."""
        dry = "?dryRun=All"
        uid = self.admin.get(f"{PODS}/{name}")["metadata"]["uid"]
        found = []
        for node in NAMES:
            node_uid = self.admin.get(f"{NODES}/{node}")["metadata"]["uid"]
            eviction = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": "default"},
            }
            owner = {"apiVersion": "v1", "kind": "Node", "name": node, "controller": True}
            mirror = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"mirror-{node}",
                    "annotations": {"kubernetes.io/config.mirror": "x"},
                    "ownerReferences": [{**owner, "uid": node_uid}],
                },
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "pause"}]},
            }
            phase = {"status": {"phase": "Running"}}
            capacity = {"status": {"capacity": {"storage": "2Gi"}}}
            found += [
                question(node, "GET", f"{SECRETS}/{name}"),
                question(node, "GET", f"{CLAIMS}/{name}"),
                question(node, "DELETE", f"{PODS}/{name}{dry}&gracePeriodSeconds=0"),
                question(node, "POST", f"{PODS}/{name}/eviction{dry}", eviction),
                question(node, "PATCH", f"{PODS}/{name}/status{dry}", {"status": {"reason": "r"}}),
                question(node, "PATCH", f"{CLAIMS}/{name}/status{dry}", capacity),
                question(node, "POST", f"{PODS}{dry}", mirror),
                question(node, "PATCH", f"{NODES}/n1/status{dry}", phase),
                *(
                    question(node, "POST", f"{NAMESPACED}/serviceaccounts/web/token",
                             token_request(name, uid, *audiences))
                    for audiences in ((), ("vault",), (ISSUER,), ("other",))
                ),
            ]  # fmt: skip
        return found

    def ask(self, asked: Question, number: int = 0) -> Verdicts:
        """Return what both API servers say to a question, by clients of a number."""
        verdicts = []
        for in_tree in (True, False):
            client = self.client(asked.node, in_tree=in_tree, number=number)
            code, answer = client.send(asked.method, asked.path, asked.body, asked.content_type)
            verdicts.append("allowed" if code < 300 else f"refused {code}")
            if code >= 500:
                verdicts[-1] += f": {answer[:100]!r}"
        return Verdicts(asked, *verdicts)

    def differences(self, name: str) -> list[Verdicts]:
        """Return where the API servers disagree about a pod."""
        found = [self.ask(asked) for asked in self.questions(name)]
        return [one for one in found if one.ours != one.in_tree]

    def ask_all(self, questions: Sequence[Question]) -> list[Verdicts]:
        """Return what both API servers say, asked all at once: answers may take their time."""
        for number, one in enumerate(questions):
            for in_tree in (True, False):
                self.client(one.node, in_tree=in_tree, number=number)
        with ThreadPoolExecutor(len(questions)) as threads:
            return list(threads.map(self.ask, questions, range(len(questions))))

    def wrongly_allowed(self, questions: Sequence[Question]) -> list[Verdicts]:
        """Return what ours allows and the in-tree plugin refuses."""
        return [one for one in self.ask_all(questions) if one.ours == "allowed" != one.in_tree]

    def agrees(self, name: str) -> None:
        """See that both API servers agree about a pod, right away."""
        assert not (found := self.differences(name)), "\n".join(map(str, found))

    def settles(self, name: str, seconds: float = GRACE) -> None:
        """Wait until both API servers agree about a pod."""
        end = time.monotonic() + seconds
        while left := self.differences(name):
            if time.monotonic() > end:
                raise AssertionError("\n".join(map(str, left)))
            time.sleep(0.1)


def token_request(name: str, uid: str, *audiences: str) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": list(audiences), "boundObjectRef": reference},
    }


def until(what: str, check: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.1)
