"""Control planes to compare: each with its own etcd and API server, and one kind of isolation."""

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from noderestrict.render.authorizer import authorization_configuration, webhook_kubeconfig
from noderestrict.render.conditions import NODE_USERS
from noderestrict.render.policies import policies
from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.conftest import USER, let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import ISSUER, APIError, Client, ControlPlane, free_port
from tests.e2e.test_registration import LEASES, NODES, PODS, RBAC, WEBHOOKS, lease
from tests.serving.tls import Server, serving

Object = dict[str, Any]
NODE, IMAGES = "n1", 40
#: Own and foreign ones, and how many of its own a pod refers to.
SECRETS, SECRETS_OF_A_POD = 500, 50
SECRETS_PATH = "/api/v1/namespaces/default/secrets"
ACCOUNTS_PATH = "/api/v1/namespaces/default/serviceaccounts"
POD, READER = f"on-{NODE}", f"reader-{NODE}"
_POLICY, _WEBHOOK = "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"
_PATIENCE = 180


@dataclass(frozen=True)
class Setup:
    """How an API server isolates nodes.

    Attributes:
        plugin: by the in-tree plugin and authorizer.
        policies: by the policies alone.
        webhooks: by our admission and authorization webhooks.
        conditions: whether the registration has its match conditions.
    """

    plugin: bool = False
    policies: bool = False
    webhooks: bool = False
    conditions: bool = True

    def flags(self) -> dict[str, str]:
        """Return the flags of the API server."""
        wanted = {
            "NodeRestriction": self.plugin, _POLICY: self.policies, _WEBHOOK: self.webhooks,
        }  # fmt: skip
        off = [name for name, on in wanted.items() if not on]
        return {
            "enable-admission-plugins": ",".join(name for name, on in wanted.items() if on),
            "disable-admission-plugins": ",".join(["ServiceAccount", *off]),
            "authorization-mode": "Node,RBAC" if self.plugin else "RBAC",
        }


SETUPS = {
    "none": Setup(),
    "in-tree": Setup(plugin=True),
    "ours": Setup(webhooks=True),
    "no conditions": Setup(webhooks=True, conditions=False),
    "policies": Setup(policies=True),
}


def cpu(pid: int) -> float:
    """Return the seconds of CPU time that a process has taken, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mib(pid: int) -> float:
    """Return the memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) / 256


@dataclass
class Running:
    """A control plane, a kubelet's connection to it, and our servers.

    Attributes:
        asked: when, monotonic, the API server last asked whether the kubelet may read an object.
    """

    setup: Setup
    control_plane: ControlPlane
    node: Client
    servers: list[Server]
    pod_uid: str = ""
    asked: dict[str, float] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Process of the API server."""
        return self.control_plane._processes["kube-apiserver"].pid

    def cpu_of_ours(self) -> float:
        """Return the seconds of CPU time that all our servers have taken."""
        return sum(cpu(server.process.pid) for server in self.servers)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that an API server does in its own time."""
    end = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(APIError, OSError):
            if holds():
                return
        assert time.monotonic() < end, "gave up"
        time.sleep(0.2)


@contextlib.contextmanager
def control_plane(folder: Path, setup: Setup, replicas: int = 1) -> Iterator[Running]:
    """Run one control plane, without anything in it but what our servers need.

    Args:
        folder: for its files; empty.
        setup: how it isolates nodes.
        replicas: of our server, if it has them; the API server asks the first.
    """
    flags, port = setup.flags(), free_port()
    if setup.webhooks:
        config, webhook = folder / "authorization.yaml", folder / "webhook.yaml"
        config.write_text(yaml.safe_dump(authorization_configuration(str(webhook))))
        at = f"https://127.0.0.1:{port}/authorize"
        webhook.write_text(yaml.safe_dump(webhook_kubeconfig(at, str(folder / "ca.crt"))))
        flags |= {"authorization-mode": "", "authorization-config": str(config)}
    running = ControlPlane(flags, ca_file=folder / "ca.crt")
    try:
        namespace_ready(running.admin)
        found = Running(setup, running, running.node(NODE), [])
        with contextlib.ExitStack() as stack:
            if setup.webhooks:
                grant(running)
                for number in range(replicas):
                    found.servers.append(
                        stack.enter_context(follow(running, folder, number, 0 if number else port))
                    )
            yield found
    finally:
        running.stop()


def grant(running: ControlPlane) -> None:
    """Let our servers read what they need."""
    running.admin.create(f"{RBAC}/clusterroles", cluster_role())
    user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
    running.admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))


@contextlib.contextmanager
def follow(running: ControlPlane, folder: Path, number: int, port: int = 0) -> Iterator[Server]:
    """Run one of our servers, with both halves, until it is ready."""
    at = folder / f"replica-{number}"
    at.mkdir()
    (at / "kubeconfig").write_text(json.dumps(running.user(USER).kubeconfig()))
    flags = ["--kubeconfig", str(at / "kubeconfig"), "--api-audiences", ISSUER, "--authorizer"]
    if port:
        flags += ["--port", str(port)]
    with serving(at, *flags, ca=running.ca, state=False) as server:
        until(lambda: server.request("/readyz")[0] == 200)
        yield server


def populate(running: Running) -> None:
    """Make what a node writes and reads, and put the isolation in force."""
    admin, setup = running.control_plane.admin, running.setup
    if not (setup.plugin or setup.webhooks):
        let_nodes_do_all(admin)
    with contextlib.suppress(APIError):
        admin.create("/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}})
    images = [
        {"names": [f"registry.example.com/image-{number}@sha256:{number:064x}"], "sizeBytes": 1}
        for number in range(IMAGES)
    ]
    labels = {f"example.com/label-{number}": "x" for number in range(9)}
    admin.create(
        NODES, {"metadata": {"name": NODE, "labels": labels}, "status": {"images": images}}
    )
    admin.create(LEASES, lease(NODE))
    admin.create(ACCOUNTS_PATH, {"metadata": {"name": "web"}})
    for number in range(SECRETS):
        for whose in ("own", "foreign"):
            secret = {"metadata": {"name": f"{whose}-{number}"}, "stringData": {"a": "b"}}
            admin.create(SECRETS_PATH, secret)
    for first in range(0, SECRETS, SECRETS_OF_A_POD):
        secrets = [
            {"name": f"v{number}", "secret": {"secretName": f"own-{number}"}}
            for number in range(first, first + SECRETS_OF_A_POD)
        ]
        admin.create(PODS, _pod(f"{READER}-{first}", secrets))
    # A kubelet gets only the tokens that a pod asks for.
    source = {"serviceAccountToken": {"path": "token"}}
    token = {"name": "token", "projected": {"sources": [source]}}
    created = admin.create(PODS, _pod(POD, [token]))
    running.pod_uid = created["metadata"]["uid"]
    if setup.policies:
        for value in policies():
            binding = value["kind"].endswith("Binding")
            plural = f"validatingadmission{'policybindings' if binding else 'policies'}"
            admin.create(f"/apis/{value['apiVersion']}/{plural}", value)
    if setup.webhooks:
        _register(running)
    isolated = setup != SETUPS["none"]
    until(lambda: refuses(running.node) is isolated)


def _register(running: Running) -> None:
    url = f"https://127.0.0.1:{running.servers[0].port}/validate"
    bundle = base64.b64encode(running.control_plane.ca.certificate).decode()
    value = webhook_configuration({"url": url, "caBundle": bundle})
    if not running.setup.conditions:
        for webhook in value["webhooks"]:
            webhook["matchConditions"] = [NODE_USERS]
    running.control_plane.admin.create(WEBHOOKS, value)


def _pod(name: str, volumes: list[Object]) -> Object:
    spec = {"nodeName": NODE, "serviceAccountName": "web", "volumes": volumes, **container()}
    return {"metadata": {"name": name}, "spec": spec}


def container() -> Object:
    """Return the container of a pod that never runs."""
    return {"containers": [{"name": "c", "image": "pause"}]}


def refuses(node: Client) -> bool:
    """Tell whether the rules are in force."""
    labels = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
    try:
        node.patch(f"{NODES}/{NODE}?dryRun=All", labels)
    except APIError:
        return True
    return False
