"""What honest and stolen kubelets ask of the API server."""

from datetime import datetime
from typing import Any

from tests.containers.cluster import Cluster, run
from tests.containers.traffic import Request

MERGE = "application/merge-patch+json"
DRY = "dryRun=All"
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
SIGNING = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SHOP = "/api/v1/namespaces/shop"
TOKENS = f"{SHOP}/serviceaccounts/web/token"
SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"


def agent(cluster: Cluster, node: str) -> dict[str, Any]:
    """Return the pod of the workload's DaemonSet on a node."""
    items = cluster.kubectl.json(
        "get", "pods", "-n", "shop", "-l", "app=agent", f"--field-selector=spec.nodeName={node}"
    )["items"]
    return next(one for one in items if "deletionTimestamp" not in one["metadata"])


def leases(cluster: Cluster) -> dict[str, float]:
    """Return when each node has renewed its Lease, in seconds since the epoch."""
    items = cluster.kubectl.json("get", "leases", "-n", "kube-node-lease")["items"]
    return {
        one["metadata"]["name"]: datetime.fromisoformat(one["spec"]["renewTime"]).timestamp()
        for one in items
    }


def not_ready(cluster: Cluster) -> list[str]:
    """Return the names of nodes that are not Ready."""
    return [
        node["metadata"]["name"]
        for node in cluster.kubectl.json("get", "nodes")["items"]
        for one in node["status"]["conditions"]
        if one["type"] == "Ready" and one["status"] != "True"
    ]


def token_request(pod: dict[str, Any] | None, *audiences: str) -> dict[str, Any]:
    """Return a request for a token, bound to a pod unless that is None."""
    spec: dict[str, Any] = {"audiences": audiences, "expirationSeconds": 3607}
    if pod is not None:
        bound = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", **bound}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


def pod_on(cluster: Cluster, node: str, *, mirror: bool = True, **spec: Any) -> dict[str, Any]:
    """Return a static pod as its kubelet mirrors it, or without what makes it one."""
    uid = cluster.kubectl("get", "node", node, "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
    mark = {"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [owner]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"static-{node}", "namespace": "shop", **(mark if mirror else {})},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "i"}],
            "enableServiceLinks": True,
            **spec,
        },
    }


def honest(cluster: Cluster, node: str) -> list[Request]:
    """Return requests of a kubelet that have to succeed.

    Tokens are what it needs us for; nearly all the rest is proved harmless without us.
    """
    label = {"metadata": {"labels": {"example.com/seen": "yes"}}}
    lease = {"metadata": {"annotations": {"example.com/seen": "yes"}}}
    return [
        Request("token", "POST", TOKENS, token_request(agent(cluster, node)), 201, interval=0.05),
        Request("mirror pod", "POST", f"{SHOP}/pods?{DRY}", pod_on(cluster, node), 201),
        Request("own label", "PATCH", f"{NODES}/{node}?{DRY}", label, 200, MERGE, 0.5),
        Request("own lease", "PATCH", f"{LEASES}/{node}?{DRY}", lease, 200, MERGE, 0.5),
    ]


def hostile(cluster: Cluster, node: str, other: str) -> list[Request]:
    """Return requests of a stolen node that have to be refused, by us."""
    theirs = agent(cluster, other)
    name = theirs["metadata"]["name"]
    own = f"{NODES}/{node}?{DRY}"
    pods = f"{SHOP}/pods?{DRY}"
    mine = agent(cluster, node)
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": "shop", "uid": "x"}
    taint = [{"key": "a", "effect": "NoSchedule"}]
    # The ServiceAccount plugin refuses what refers to a Secret before we are asked.
    config = [{"name": "c", "configMap": {"name": "web"}}]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    refused: list[tuple[str, str, str, Any]] = [
        ("label", "PATCH", own, label),
        ("label by status", "PATCH", f"{NODES}/{node}/status?{DRY}", label),
        ("taint", "PATCH", own, {"spec": {"taints": taint}}),
        ("owner", "PATCH", own, {"metadata": {"ownerReferences": [owner]}}),
        ("another node", "PATCH", f"{NODES}/{other}?{DRY}", {"metadata": {"labels": {"a": "b"}}}),
        ("plain pod", "POST", pods, pod_on(cluster, node, mirror=False)),
        ("mirror pod with a config map", "POST", pods, pod_on(cluster, node, volumes=config)),
        ("mirror pod elsewhere", "POST", pods, pod_on(cluster, other)),
        ("another pod", "DELETE", f"{SHOP}/pods/{name}?{DRY}", None),
        ("another pod's status", "PATCH", f"{SHOP}/pods/{name}/status?{DRY}",
         {"status": {"message": "gone"}}),
        ("pod's labels", "PATCH", f"{SHOP}/pods/{mine['metadata']['name']}/status?{DRY}",
         {"metadata": {"labels": {"app": "db"}}}),
        ("eviction", "POST", f"{SHOP}/pods/{name}/eviction?{DRY}", eviction),
        ("unbound token", "POST", TOKENS, token_request(None)),
        ("another pod's token", "POST", TOKENS, token_request(theirs)),
        ("token for another audience", "POST", TOKENS, token_request(mine, "bank")),
        ("another's certificate", "POST", f"{SIGNING}?{DRY}", signing_request(other)),
    ]  # fmt: skip
    return [
        Request(f"hostile: {name}", method, path, body, 403,
                MERGE if method == "PATCH" else "application/json", 1)
        for name, method, path, body in refused
    ]  # fmt: skip


def signing_request(node: str) -> dict[str, Any]:
    """Return a request for the client certificate of a node's kubelet."""
    subject = f"/O=system:nodes/CN=system:node:{node}"
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null")
    pem = run("openssl", "req", "-new", *key, "-subj", subject)
    encoded = run("base64", "-w0", stdin=pem)
    usages = ["digital signature", "client auth"]
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "stolen-"},
        "spec": {"request": encoded, "signerName": SIGNER, "usages": usages},
    }
