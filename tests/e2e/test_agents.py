"""An agent's token reaches its own node, and no other: on a real API server."""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from noderestrict.agents.load import parse
from noderestrict.cli import main
from noderestrict.render.agents import read_conditions
from noderestrict.render.authorizer import authorization_configuration, webhook_kubeconfig
from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import ISSUER, APIError, Client, ControlPlane, Object, free_port
from tests.serving.tls import Server, serving

RBAC = "/apis/rbac.authorization.k8s.io/v1"
CORE = "/api/v1/namespaces"
#: The first minor version whose API servers have constrained impersonation, on by default.
CONSTRAINED_SINCE = 36
PODS = f"{CORE}/default/pods"
POLICY = """
agents:
- name: driver
  users: [{serviceAccount: storage/driver}, {serviceAccount: storage/associated}]
  write:
  - resources: [nodes, nodes/status]
    operations: [UPDATE]
    relation: own-node
    fields: ['metadata.annotations["example.com/*"]', 'status.conditions[type=Driver]']
  - {resources: [pods], operations: [UPDATE], relation: own-pods, fields: [metadata.annotations]}
  - {resources: [pods], operations: [DELETE], relation: own-pods}
  - {resources: [pods/exec], operations: [CONNECT], relation: own-pods}
  - {resources: [nodes/proxy], operations: [CONNECT], relation: own-node}
  - {resources: [pods/eviction], operations: [CREATE], relation: own-pods}
  - {resources: [configmaps], operations: [CREATE, DELETE], relation: {name: "driver-{node}"}}
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    operations: [CREATE, UPDATE]
    relation: {label: example.com/node}
  read:
  - {resources: [nodes], relation: own-node}
  - {resources: [pods], relation: own-pods}
  - {resources: [secrets], relation: referenced}
  - {resources: [services], relation: any}
"""


AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "RequestResponse", "resources": [{"group": "", "resources": ["*"]}]}],
}
#: What an agent may do as its own node, as Kubernetes 1.36 has it.
ASSOCIATED = [
    {
        "apiGroups": ["authentication.k8s.io"],
        "resources": ["nodes"],
        "verbs": ["impersonate:associated-node"],
    },
    {
        "apiGroups": [""],
        "resources": ["nodes", "nodes/status"],
        "verbs": [f"impersonate-on:associated-node:{verb}" for verb in ("get", "list", "patch")],
    },
]


class TokenClient(Client):
    """A user of the API, with a token."""

    def __init__(
        self, control_plane: ControlPlane, token: str, headers: dict[str, str] | None = None
    ) -> None:
        admin = control_plane.admin
        folder = Path(admin._file.parent)
        super().__init__(control_plane.port, admin.ca, admin.pair, folder, f"t{token[-12:]}")
        self._context = ssl.create_default_context(cadata=admin.ca.certificate.decode())
        self._control_plane = control_plane
        self._token = token
        self._headers = headers or {}

    def as_node(self, name: str, group: str = "") -> "TokenClient":
        """Return a client that impersonates a node; without a group, as its own node alone."""
        headers = {"Impersonate-User": f"system:node:{name}"}
        headers |= {"Impersonate-Group": group} if group else {}
        return TokenClient(self._control_plane, self._token, headers)

    def _send(
        self, method: str, path: str, data: bytes | None, content_type: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, timeout=40
        )
        headers = {
            **self._headers,
            "Content-Type": content_type,
            "Authorization": f"Bearer {self._token}",
        }
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            self.warnings = response.headers.get_all("Warning") or []
            return response.status, response.read()
        finally:
            connection.close()


@dataclass
class Agents:
    """A cluster with agents."""

    control_plane: ControlPlane

    @property
    def admin(self) -> Client:
        return self.control_plane.admin

    def pod(
        self, name: str, node: str, namespace: str = "default", account: str = "web", **spec: Any
    ) -> Object:
        return self.admin.create(
            f"{CORE}/{namespace}/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {
                    "nodeName": node,
                    "containers": [{"name": "c", "image": "pause"}],
                    "serviceAccountName": account,
                    **spec,
                },
            },
        )

    def token(self, namespace: str, bound: Object | None, account: str = "driver") -> TokenClient:
        spec = {"boundObjectRef": bound} if bound else {}
        path = f"{CORE}/{namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.admin.create(path, request)
        return TokenClient(self.control_plane, answer["status"]["token"])

    def agent(self, pod: Object) -> TokenClient:
        account = pod["spec"]["serviceAccountName"]
        return self.token(pod["metadata"]["namespace"], reference(pod, "Pod"), account)

    def with_legacy_token(self, namespace: str, account: str = "driver") -> TokenClient:
        """Return a client with a token that is kept in a Secret, as before Kubernetes 1.24."""
        uid = self.admin.get(f"{CORE}/{namespace}/serviceaccounts/{account}")["metadata"]["uid"]
        prefix = "kubernetes.io/serviceaccount"
        claims = {
            "iss": "kubernetes/serviceaccount",
            f"{prefix}/namespace": namespace,
            f"{prefix}/secret.name": "legacy",
            f"{prefix}/service-account.name": account,
            f"{prefix}/service-account.uid": uid,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        key = serialization.load_pem_private_key(
            (self.control_plane.folder / "sa.key").read_bytes(), None
        )
        assert isinstance(key, rsa.RSAPrivateKey)
        signed = ".".join(map(encoded, (b'{"alg":"RS256"}', json.dumps(claims).encode())))
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        token = f"{signed}.{encoded(signature)}"
        self.admin.create(
            f"{CORE}/{namespace}/secrets",
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": f"{prefix}-token".replace("serviceaccount", "service-account"),
                "metadata": {
                    "name": "legacy",
                    "annotations": {
                        f"{prefix}.name".replace("serviceaccount", "service-account"): account,
                        f"{prefix}.uid".replace("serviceaccount", "service-account"): uid,
                    },
                },
                "data": {"token": base64.b64encode(token.encode()).decode()},
            },
        )
        return TokenClient(self.control_plane, token)


@dataclass
class Cluster(Agents):
    """A cluster in which our server holds agents.

    Attributes:
        server: that does.
        policy: of the agents.
        log: of the API server's audit.
    """

    server: Server
    policy: Path
    log: Path


def encoded(data: bytes) -> str:
    """Return a part of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def reference(value: Object, kind: str) -> Object:
    meta = value["metadata"]
    return {"apiVersion": "v1", "kind": kind, "name": meta["name"], "uid": meta["uid"]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("agents")
    port = free_port()
    policy = folder / "agents.yaml"
    policy.write_text(POLICY)
    held = parse(POLICY.encode(), "agents.yaml").agents
    ca, config, webhook = folder / "ca.crt", folder / "authorization.yaml", folder / "webhook.yaml"
    config.write_text(
        yaml.safe_dump(authorization_configuration(str(webhook), agents=read_conditions(held, 36)))
    )
    webhook.write_text(
        yaml.safe_dump(webhook_kubeconfig(f"https://127.0.0.1:{port}/authorize", str(ca)))
    )
    audited, log = folder / "audit.yaml", folder / "audit.log"
    audited.write_text(yaml.safe_dump(AUDIT))
    flags = {
        "authorization-mode": "",
        "authorization-config": str(config),
        "audit-policy-file": str(audited),
        "audit-log-path": str(log),
    }
    control_plane = ControlPlane(flags, ca_file=ca)
    try:
        prepare(control_plane.admin)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(json.dumps(control_plane.user("noderestrict").kubeconfig()))
        flags_of_server = (
            *("--kubeconfig", str(kubeconfig), "--api-audiences", ISSUER, "--authorizer"),
            *("--port", str(port), "--agents", str(policy)),
        )
        with serving(folder, *flags_of_server, ca=control_plane.ca, state=False) as server:
            until(lambda: server.request("/readyz")[0] == 200)
            bundle = base64.b64encode(control_plane.ca.certificate).decode()
            client = {"url": f"https://127.0.0.1:{port}/validate", "caBundle": bundle}
            control_plane.admin.create(
                "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
                webhook_configuration(client, agents=held),
            )
            running = Cluster(control_plane, server, policy, log)
            wait_enforced(running)
            yield running
    finally:
        control_plane.stop()


def prepare(admin: Client) -> None:
    """Make two nodes, and two accounts of one name that may do everything."""
    admin.create(f"{RBAC}/clusterroles", cluster_role())
    user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "noderestrict"}
    admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
    namespace_ready(admin)
    for name in ("n1", "n2"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        admin.create("/api/v1/nodes", node)
    for namespace in ("storage", "other"):
        admin.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        )
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "driver"}}
        admin.create(f"{CORE}/{namespace}/serviceaccounts", account)
        subject = {"kind": "ServiceAccount", "name": "driver", "namespace": namespace}
        binding = cluster_role_binding(subject)
        binding["metadata"]["name"], binding["roleRef"]["name"] = namespace, "cluster-admin"
        admin.create(f"{RBAC}/clusterrolebindings", binding)


def until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def wait_enforced(cluster: Cluster) -> None:
    agent = cluster.agent(cluster.pod("driver-1", "n1", "storage", "driver"))
    probe = f"{CORE}/default/configmaps?dryRun=All"
    until(lambda: refusal(lambda: agent.create(probe, configmap("probe"))))


def configmap(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def refusal(call: Any) -> str:
    """Return why a request is refused, "" if it is not."""
    try:
        call()
    except APIError as error:
        return str(error) if error.code == 403 else f"answered {error}"
    return ""


@pytest.fixture(scope="module")
def agent(cluster: Cluster) -> TokenClient:
    pod = cluster.admin.get(f"{CORE}/storage/pods/driver-1")
    return cluster.agent(pod)


def merge(client: Client, path: str, body: Object) -> Any:
    return lambda: client.patch(path, body)


def write_attacks(cluster: Agents, agent: TokenClient) -> dict[str, Any]:
    """Return the writes of public reports, against a pod elsewhere and its node."""
    cluster.pod("victim", "n2", volumes=[{"name": "s", "secret": {"secretName": "theirs"}}])
    other = "/api/v1/nodes/n2"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "victim"}}
    return {
        "cordon": merge(agent, other, {"spec": {"unschedulable": True}}),
        "capacity": merge(agent, f"{other}/status", {"status": {"capacity": {"cpu": "0"}}}),
        "label": merge(agent, other, {"metadata": {"labels": {"a": "b"}}}),
        "annotation": merge(agent, other, {"metadata": {"annotations": {"example.com/a": "b"}}}),
        "taint": merge(agent, other, TAINT),
        "delete pod": lambda: agent.delete(f"{PODS}/victim"),
        "evict pod": lambda: agent.create(f"{PODS}/victim/eviction", eviction),
        "exec": lambda: agent.create(f"{PODS}/victim/exec?command=id&container=c", {}),
        "delete node": lambda: agent.delete(other),
        "delete all": lambda: agent.request("DELETE", PODS),
        "create pod": lambda: agent.create(PODS, bare_pod("n2")),
        "token": lambda: agent.create(
            f"{CORE}/other/serviceaccounts/driver/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        ),
        "bind": lambda: agent.create(
            f"{RBAC}/clusterrolebindings",
            cluster_role_binding(
                {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "x"}
            ),
        ),
    }


def test_attacks_of_public_reports_are_refused(cluster: Cluster, agent: TokenClient) -> None:
    writes = write_attacks(cluster, agent)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}}
    cluster.admin.create(f"{CORE}/default/secrets", secret)
    other = "/api/v1/nodes/n2"
    for name, attack in writes.items():
        assert "agent 'driver'" in refusal(attack), name
    reads: dict[str, str] = {
        "secret": f"{CORE}/default/secrets/theirs",
        "all secrets": "/api/v1/secrets",
        "all pods": "/api/v1/pods",
        "pods of another node": "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2",
        "pod": f"{PODS}/victim",
        "node": other,
        "all nodes": "/api/v1/nodes",
        "configmaps": "/api/v1/configmaps",
    }
    for name, path in reads.items():
        assert "agent 'driver'" in refusal(lambda path=path: agent.get(path)), name


def bare_pod(node: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "made"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "pause"}]},
    }


def test_honest_work_is_allowed(cluster: Cluster, agent: TokenClient) -> None:
    own = "/api/v1/nodes/n1"
    agent.patch(own, {"metadata": {"annotations": {"example.com/a": "b"}}})
    condition = {"type": "Driver", "status": "True"}
    agent.request("PATCH", f"{own}/status", {"status": {"conditions": [condition]}}, STRATEGIC)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ours"}}
    cluster.admin.create(f"{CORE}/default/secrets", secret)
    for name in ("app", "evicted"):
        cluster.pod(name, "n1", volumes=[{"name": "s", "secret": {"secretName": "ours"}}])
    agent.patch(f"{PODS}/app", {"metadata": {"annotations": {"a": "b"}}})
    for path in (
        own,
        f"{PODS}/app",
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1",
        "/api/v1/nodes?fieldSelector=metadata.name%3Dn1",
        f"{CORE}/default/secrets/ours",
        "/api/v1/services",
    ):
        agent.get(path)
    agent.create(f"{CORE}/default/configmaps", configmap("driver-n1"))
    assert "driver-n2" in refusal(
        lambda: agent.create(f"{CORE}/default/configmaps", configmap("driver-n2"))
    )
    agent.delete(f"{CORE}/default/configmaps/driver-n1")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}}
    agent.create(f"{PODS}/evicted/eviction", eviction)
    agent.delete(f"{PODS}/app")


def test_only_named_fields_of_the_own_node_change(agent: TokenClient) -> None:
    own = "/api/v1/nodes/n1"
    refused = refusal(merge(agent, own, {"spec": {"unschedulable": True}}))
    assert "this changes spec.unschedulable" in refused
    refused = refusal(merge(agent, own, {"metadata": {"labels": {"a": "b"}}}))
    assert "this changes metadata.labels.a" in refused
    ready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    refused = refusal(lambda: agent.request("PATCH", f"{own}/status", ready, STRATEGIC))
    assert "this changes status.conditions[type=Ready]" in refused


#: How the message about a token from a Secret begins.
LEGACY = "it looks like one from a Secret"


def test_tokens_that_are_bound_to_no_pod_are_told_apart(cluster: Cluster) -> None:
    secret = cluster.admin.create(
        f"{CORE}/storage/secrets",
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bound"}},
    )
    node = cluster.admin.get("/api/v1/nodes/n1")
    legacy = cluster.with_legacy_token("storage")
    for bound, why in (
        (None, LEGACY),
        (None, "bound to no pod"),
        (reference(secret, "Secret"), "bound to no pod"),
        (reference(node, "Node"), "bound to a Node"),
    ):
        client = cluster.token("storage", bound) if why != LEGACY else legacy
        body = {"metadata": {"annotations": {"example.com/a": "c"}}}
        assert why in refusal(merge(client, "/api/v1/nodes/n1", body))
        assert why in refusal(lambda client=client: client.get("/api/v1/nodes/n1"))
        client.get("/api/v1/services")


def test_a_token_of_another_node_reaches_that_node(cluster: Cluster) -> None:
    client = cluster.agent(cluster.pod("driver-2", "n2", "storage", "driver"))
    body = {"metadata": {"annotations": {"example.com/b": "c"}}}
    client.patch("/api/v1/nodes/n2", body)
    assert "node 'n2'" in refusal(merge(client, "/api/v1/nodes/n1", body))


def opened(client: Client, node: str) -> str:
    """Return why a request through the API server to a kubelet is refused, "" if it is not.

    No kubelet runs, so that one that is not refused fails.
    """
    with pytest.raises(APIError) as caught:
        client.get(f"/api/v1/nodes/{node}/proxy/configz")
    return str(caught.value) if caught.value.code == 403 else ""


def asked_by_kubelet(cluster: Cluster, node: str, verb: str, agent_node: str) -> tuple[bool, str]:
    """Return what a kubelet is told when it asks whether an agent may use its API, and why."""
    claims = {"node-name": agent_node, "pod-name": "driver-1", "pod-uid": "u"}
    review = cluster.admin.create(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": "system:serviceaccount:storage:driver",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {
                    f"authentication.kubernetes.io/{key}": [value] for key, value in claims.items()
                },
                "resourceAttributes": {
                    "verb": verb, "version": "v1", "resource": "nodes", "subresource": "proxy",
                    "name": node,
                },
            },
        },
    )  # fmt: skip
    status = review["status"]
    return status["allowed"], status.get("reason", "")


def test_only_the_kubelet_of_the_own_node_lets_an_agent_in(
    cluster: Cluster, agent: TokenClient
) -> None:
    assert not opened(agent, "n1")
    assert "agent 'driver'" in opened(agent, "n2")
    for verb in ("get", "create"):
        assert asked_by_kubelet(cluster, "n1", verb, "n1")[0], verb
        allowed, why = asked_by_kubelet(cluster, "n2", verb, "n1")
        assert not allowed, verb
        assert "agent 'driver'" in why, verb


def test_an_account_of_that_name_in_another_namespace_is_no_agent(cluster: Cluster) -> None:
    client = cluster.agent(cluster.pod("driver-1", "n1", "other", "driver"))
    client.patch("/api/v1/nodes/n2", {"metadata": {"labels": {"free": "yes"}}})
    client.get("/api/v1/secrets")


def held_as_a_kubelet(as_node: TokenClient) -> None:
    """Assert that both halves hold an agent as the kubelet of n1, and that no policy does."""
    # A node may report what it likes of itself: no policy of an agent is asked.
    capacity = {"status": {"capacity": {"example.com/thing": "1"}}}
    as_node.patch("/api/v1/nodes/n1/status", capacity)
    for path, rule in (("/api/v1/nodes/n2/status", capacity), ("/api/v1/nodes/n1", TAINT)):
        refused = refusal(merge(as_node, path, rule))
        assert "admission webhook" in refused
        assert "agent" not in refused
    refused = refusal(lambda: as_node.get("/api/v1/nodes/n2"))
    assert "read only its own Node" in refused
    assert "agent" not in refused


def test_an_agent_that_impersonates_its_node_is_held_as_the_kubelet_is(agent: TokenClient) -> None:
    held_as_a_kubelet(agent.as_node("n1", "system:nodes"))


def test_an_agent_that_may_be_its_own_node_alone_is_held_as_the_kubelet_is(
    cluster: Cluster,
) -> None:
    if int(cluster.admin.get("/version")["minor"]) < CONSTRAINED_SINCE:
        pytest.skip("no constrained impersonation")
    admin = cluster.admin
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "associated"}}
    admin.create(f"{CORE}/storage/serviceaccounts", account)
    role: Object = {"kind": "ClusterRole", "metadata": {"name": "associated"}, "rules": ASSOCIATED}
    admin.create(f"{RBAC}/clusterroles", role)
    subject = {"kind": "ServiceAccount", "name": "associated", "namespace": "storage"}
    binding = cluster_role_binding(subject)
    binding["metadata"]["name"] = binding["roleRef"]["name"] = "associated"
    admin.create(f"{RBAC}/clusterrolebindings", binding)
    plain = cluster.agent(cluster.pod("associated-1", "n1", "storage", "associated"))
    as_node = plain.as_node("n1")
    until(lambda: not refusal(lambda: as_node.get("/api/v1/nodes/n1")))
    held_as_a_kubelet(as_node)
    assert "cannot impersonate" in refusal(
        lambda: plain.as_node("n2").get("/api/v1/nodes/n2")
    ) or "forbidden" in refusal(lambda: plain.as_node("n2").get("/api/v1/nodes/n2"))
    # As itself it is an agent, and RBAC grants it nothing.
    assert refusal(merge(plain, "/api/v1/nodes/n1/status", {"status": {"capacity": {"a": "1"}}}))


def test_an_audit_log_tells_who_acts_as_which_node(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    if int(cluster.admin.get("/version")["minor"]) < CONSTRAINED_SINCE:
        pytest.skip("no constrained impersonation")
    command = ["replay", "--audit-log", str(cluster.log), "--agents", str(cluster.policy)]
    main([*command, "--output", "json", "--show", "all"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    who = "system:serviceaccount:storage:associated"
    acted = [one for one in found if one.get("impersonator") == who]
    assert {(one["user"], one["node"], one.get("agent", "")) for one in acted} == {
        ("system:node:n1", "n1", "")
    }
    judged = {(one["resource"], one["name"], one["allowed"], one["rule"]) for one in acted}
    assert ("nodes/status", "n1", True, "") in judged


STRATEGIC = "application/strategic-merge-patch+json"
TAINT = {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}


def test_what_is_surely_allowed_goes_on_without_the_server(
    cluster: Cluster, agent: TokenClient
) -> None:
    """The last test: it stops the server."""
    cluster.pod("left", "n1")
    cluster.server.process.terminate()
    cluster.server.process.wait(timeout=30)
    own = "/api/v1/nodes/n1"
    agent.patch(own, {"metadata": {"annotations": {"example.com/a": "d"}}})
    condition = {"status": {"conditions": [{"type": "Driver", "status": "False"}]}}
    agent.request("PATCH", f"{own}/status", condition, STRATEGIC)
    agent.get(own)
    agent.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
    agent.get("/api/v1/services")
    agent.delete(f"{PODS}/left")
    for attack in (
        merge(agent, "/api/v1/nodes/n2", {"spec": {"unschedulable": True}}),
        merge(agent, own, {"spec": {"unschedulable": True}}),
        lambda: agent.get("/api/v1/secrets"),
        lambda: agent.get("/api/v1/pods"),
    ):
        code = 0
        try:
            attack()
        except APIError as error:
            code = error.code
        assert code in (403, 500)
    # Nobody else needs it.
    cluster.admin.patch("/api/v1/nodes/n2", {"metadata": {"labels": {"a": "b"}}})
