"""A cluster in which everything is as it should be, ours installed and the authorizer as well."""

import base64
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from noderestrict.agents.agents import Agents, InForce
from noderestrict.policy.features import OFFLINE_MINOR, defaults
from noderestrict.policy.releases import LATEST
from noderestrict.policy.settings import Settings
from noderestrict.render.authorizer import authorization_configuration
from noderestrict.render.registration import cluster_role
from noderestrict.render.workload import NAMESPACE, TLS_SECRET
from noderestrict.serving.modes import Modes
from noderestrict.telemetry.metrics import Metrics
from tests.cli.store import kubeconfig
from tests.doctor.test_credentials import CONTROL_PLANE, is_list, path_of
from tests.render.overlays import FILES, build
from tests.serving.tls import authority, client_leaf
from tests.verify.cluster import APIServer

Object = dict[str, Any]
SPACE = f"/api/v1/namespaces/{NAMESPACE}"
SYSTEM = "/api/v1/namespaces/kube-system"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/noderestrict"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/noderestrict"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{}"
SERVER = f"system:serviceaccount:{NAMESPACE}:noderestrict"
OURS = 'admission webhook "x.noderestrict.io" denied the request: {}'
GATES = defaults(OFFLINE_MINOR)
VERSION = f"v1.{OFFLINE_MINOR}.2"
COMPONENTS = ("client-verification",)
CA = authority()
NODE = client_leaf(CA, "system:node:n1", "system:nodes")


class Healthy(APIServer):
    """An API server whose objects are all in order.

    Attributes:
        rendered: the files of the manifests that are installed.
        version: of the API server.
        exposed: metrics, by path.
        rights: of users other than node users: user, verb, resource.
        node_rights: what RBAC lets a member of system:nodes do, by verb and resource.
        authorizes: the answer to a node that asks for its own Node; None for that of the rules.
        files: kubeconfig of a kubelet, and the API server's AuthorizationConfiguration.
        asked: method and path of each request.
        refuses: tells which requests are refused.
        code: with which status.
    """

    rendered: Mapping[str, str] = FILES

    def __init__(self) -> None:
        super().__init__()
        self.says = OURS.format
        self.version = VERSION
        self.exposed: dict[str, bytes] = {"/metrics": gates(GATES)}
        self.rights = {
            (SERVER, verb, resource)
            for rule in cluster_role()["rules"]
            for resource in rule.get("resources") or ()
            for verb in rule["verbs"]
        }
        self.node_rights: set[tuple[str, str]] = set()
        self.authorizes: Object | None = None
        self.asked: set[tuple[str, str]] = set()
        self.refuses: Callable[[tuple[str, str]], bool] = lambda _: False
        self.code = 403
        self.files: dict[str, Object] = {
            "kubelet.conf": kubelet(NODE.certificate),
            "authorization.yaml": authorization_configuration("/w"),
        }
        del self.objects["/api/v1/nodes"]
        attachments = self.objects["/apis/storage.k8s.io/v1/volumeattachments"]
        attachments["metadata"] = {"resourceVersion": "1"}
        self._install()
        self._cluster()

    def _install(self) -> None:
        for value in _built(type(self)):
            self.objects[path_of(value)] = copy.deepcopy(value)
        bundle = base64.b64encode(CA.certificate).decode()
        for webhook in self.objects[REGISTRATION]["webhooks"]:
            webhook["clientConfig"]["caBundle"] = bundle
        secret = {"metadata": {"name": TLS_SECRET}, "data": {"ca.crt": bundle}}
        self.objects[f"{SPACE}/secrets/{TLS_SECRET}"] = secret
        self.objects[f"{SPACE}/secrets/noderestrict-ca"] = {"metadata": {"name": "noderestrict-ca"}}
        deployment = self.objects[DEPLOYMENT]
        deployment["status"] = {"observedGeneration": 1, "updatedReplicas": 2, "readyReplicas": 2}
        endpoints = []
        for name, node in (("a", "cp"), ("b", "cp2")):
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            self.put(
                f"{SPACE}/pods/{name}", labels=labels,
                spec={**deployment["spec"]["template"]["spec"], "nodeName": node},
                status={"phase": "Running"},
            )  # fmt: skip
            self.exposed[f"{SPACE}/pods/{name}:9090/proxy/metrics"] = metrics()
            endpoints.append({"nodeName": node, "targetRef": {"kind": "Pod", "name": name}})
        self.put(
            SLICES.format(NAMESPACE, "noderestrict-x"), endpoints=endpoints,
            labels={"kubernetes.io/service-name": "noderestrict"},
        )  # fmt: skip

    def _cluster(self) -> None:
        for name, address in (("cp", "10.0.0.1"), ("cp2", "10.0.0.2")):
            addresses = [{"type": "InternalIP", "address": address}]
            self.put(f"/api/v1/nodes/{name}", labels=CONTROL_PLANE, status={"addresses": addresses})
            command = ["kube-apiserver", "--authorization-config=/a"]
            self.put(
                f"{SYSTEM}/pods/kube-apiserver-{name}", labels={"component": "kube-apiserver"},
                spec={"nodeName": name, "containers": [{"name": "c", "command": command}]},
            )  # fmt: skip
            self.put(
                f"{SYSTEM}/pods/noderestrict-authorizer-{name}",
                labels={"app.kubernetes.io/name": "noderestrict-authorizer"},
                spec={"nodeName": name, "containers": [{"name": "c"}]},
                status={"conditions": [{"type": "Ready", "status": "True"}]},
            )
        self.put(
            SLICES.format("default", "kubernetes"),
            labels={"kubernetes.io/service-name": "kubernetes"},
            endpoints=[{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}],
        )
        agent = {
            "hostNetwork": True, "serviceAccountName": "kube-proxy",
            "containers": [{"name": "c", "securityContext": {"privileged": True}}],
        }  # fmt: skip
        self.put(
            "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
            spec={"template": {"spec": agent}},
        )

    def put(self, path: str, labels: Mapping[str, str] | None = None, **fields: Any) -> Object:
        """Add an object, and return it."""
        steps = path.split("/")
        metadata: Object = {"name": steps[-1], "labels": dict(labels or {})}
        if "namespaces" in steps[:-2]:
            metadata["namespace"] = steps[steps.index("namespaces") + 1]
        self.objects[path] = {"metadata": metadata, **fields}
        return self.objects[path]

    async def answer(self, request: web.Request) -> web.Response:
        one = (request.method, request.path)
        self.asked.add(one)
        if self.refuses(one):
            body = {
                "kind": "Status",
                "message": "you may not impersonate or get",
                "code": self.code,
            }
            return web.json_response(body, status=self.code)
        if (text := self.exposed.get(request.path)) is not None:
            return web.Response(body=text)
        return await super().answer(request)

    def _read(self, path: str, query: dict[str, str]) -> tuple[int, Object]:
        if path == "/version":
            return 200, {"gitVersion": self.version}
        if path in self.objects:
            return 200, self.objects[path]
        if path == "/api/v1/pods" and "fieldSelector" in query:
            return super()._read(path, query)
        if path.endswith("/proxy/metrics"):
            return 503, {"message": "connection refused"}
        if not is_list(path):
            return 404, {"message": f"{path} not found"}
        return 200, {"metadata": {"resourceVersion": "1"}, "items": self._items(path, query)}

    def _items(self, path: str, query: Mapping[str, str]) -> list[Object]:
        wanted = dict(one.split("=") for one in query.get("labelSelector", "").split(",") if one)
        prefix, _, plural = path.rpartition("/")
        return [
            value
            for one, value in self.objects.items()
            if one.startswith(f"{prefix}/")
            and one.split("/")[-2] == plural
            and wanted.items() <= (value["metadata"].get("labels") or {}).items()
        ]

    def _access(self, body: Object) -> Object:
        spec = body["spec"]
        asked = spec["resourceAttributes"]
        if not spec["user"].startswith("system:node:"):
            if "system:nodes" in spec.get("groups", ()):
                return {"allowed": (asked["verb"], asked["resource"]) in self.node_rights}
            return {"allowed": (spec["user"], asked["verb"], asked["resource"]) in self.rights}
        if self.authorizes is not None and asked["resource"] == "nodes":
            return self.authorizes
        return super()._access(body)

    def flags(self, folder: Path) -> list[str]:
        """Write the files that flags name, and return the flags."""
        for name, value in self.files.items():
            (folder / name).write_text(json.dumps(value))
        return [
            f"--node-kubeconfig={folder}/kubelet.conf",
            f"--authorization-config={folder}/authorization.yaml",
        ]


#: The objects that are installed: building them takes most of a test's time.
_BUILT: dict[type[Healthy], Sequence[Object]] = {}


def _built(kind: type[Healthy]) -> Sequence[Object]:
    if kind not in _BUILT:
        _BUILT[kind] = build("self-signed", COMPONENTS, kind.rendered)
    return _BUILT[kind]


def kubelet(certificate: bytes) -> Object:
    """Return a kubelet's kubeconfig."""
    value = kubeconfig("https://127.0.0.1:1")
    data = {"client-certificate-data": certificate, "client-key-data": NODE.key}
    user = {key: base64.b64encode(one).decode() for key, one in data.items()}
    return {**value, "users": [{"name": "u", "user": user}]}


def metrics(
    settings: Settings | None = None, mode: str = "enforce", held: Agents | None = None
) -> bytes:
    """Return the metrics of one of our servers."""
    found = Metrics()
    held = held or Agents()
    found.policy.mode_of = Modes(mode, by_agent=held.modes()).of
    found.follow_agents(InForce(held))
    found.policy.settings = settings or Settings(features=GATES)
    found.self_test.set(1)
    found.store_age.labels("pods").set(3)
    found.kubernetes(OFFLINE_MINOR, LATEST)
    return found.exposition()


def gates(values: Mapping[str, bool]) -> bytes:
    """Return the metrics of an API server with feature gates."""
    lines = (
        f'kubernetes_feature_enabled{{name="{name}",stage=""}} {int(on)}\n'
        for name, on in values.items()
    )
    return "".join(lines).encode()
