"""Node users against a real API server that asks the webhook."""

import base64
import json
import os
import signal
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.conftest import Cluster
from tests.e2e.control_plane import APIError

PODS = "/api/v1/namespaces/default/pods"
SIGNER = "example.com/signer"
TOKEN = "/api/v1/namespaces/default/serviceaccounts/web/token"


def token_request(pod: dict[str, Any], *audiences: str, **reference: str) -> dict[str, Any]:
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": list(audiences),
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
                **reference,
            },
        },
    }


def refused(cluster: Cluster, *arguments: Any, user: str = "n1", code: int = 0) -> str:
    with pytest.raises(APIError) as error:
        getattr(cluster, user).request(*arguments)
    assert "admission webhook" in str(error.value)
    assert error.value.code in ((code,) if code else (403, 404))
    return str(error.value)


def test_a_node_changes_its_own_status_and_no_other_node(cluster: Cluster) -> None:
    status = {"status": {"phase": "Running"}}
    cluster.n1.patch("/api/v1/nodes/n1/status", status)
    patch = {"metadata": {"labels": {"a": "b"}}}
    message = refused(cluster, "PATCH", "/api/v1/nodes/n2", patch, "application/merge-patch+json")
    assert "nodes n2" in message


def test_all_forbidden_labels_are_named_at_once(cluster: Cluster) -> None:
    labels = {"node-restriction.kubernetes.io/a": "1", "k8s.io/b": "2", "example.com/c": "3"}
    message = refused(cluster, "PATCH", "/api/v1/nodes/n1", {"metadata": {"labels": labels}},
                      "application/merge-patch+json")  # fmt: skip
    assert "node-restriction.kubernetes.io/a" in message
    assert "k8s.io/b" in message
    assert "example.com/c" not in message


def test_owner_references_and_taints_stay(cluster: Cluster) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "1"}
    for path in ("/api/v1/nodes/n1", "/api/v1/nodes/n1/status"):
        refused(cluster, "PATCH", path, {"metadata": {"ownerReferences": [owner]}},
                "application/merge-patch+json")  # fmt: skip
    taints = [{"key": "a", "effect": "NoSchedule"}]
    refused(cluster, "PATCH", "/api/v1/nodes/n1", {"spec": {"taints": taints}},
            "application/merge-patch+json")  # fmt: skip


def test_only_own_pods_are_deleted_evicted_and_reported_on(cluster: Cluster) -> None:
    for name, node in (("own", "n1"), ("foreign", "n2")):
        cluster.pod(name, node)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction"}
    refused(cluster, "DELETE", f"{PODS}/foreign")
    refused(
        cluster, "POST", f"{PODS}/foreign/eviction", {**eviction, "metadata": {"name": "foreign"}}
    )
    status = {"status": {"phase": "Running"}}
    refused(cluster, "PATCH", f"{PODS}/foreign/status", status, "application/merge-patch+json")
    labels = {"metadata": {"labels": {"a": "b"}}}
    refused(cluster, "PATCH", f"{PODS}/own/status", labels, "application/merge-patch+json")
    cluster.n1.patch(f"{PODS}/own/status", status)
    cluster.n1.create(f"{PODS}/own/eviction", {**eviction, "metadata": {"name": "own"}})
    cluster.n2.delete(f"{PODS}/foreign")
    with pytest.raises(APIError) as error:
        cluster.n1.create(f"{PODS}/none/eviction", {**eviction, "metadata": {"name": "none"}})
    assert error.value.code == 404


def test_tokens_are_for_own_pods_and_audiences_they_ask_for(cluster: Cluster) -> None:
    projected = {
        "name": "t",
        "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]},
    }
    default = {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    pod = cluster.pod("tokens", volumes=[projected, default])
    cluster.n1.create(TOKEN, token_request(pod))
    cluster.n1.create(TOKEN, token_request(pod, "vault"))
    assert "other" in refused(cluster, "POST", TOKEN, token_request(pod, "other"))
    refused(cluster, "POST", TOKEN, token_request(pod), user="n2")
    # A pod that does not exist, or with another uid, is found out by the API server or by us.
    for wrong in ({"uid": "11111111-1111-1111-1111-111111111111"}, {"name": "nobody"}):
        with pytest.raises(APIError):
            cluster.n1.create(TOKEN, token_request(pod, **wrong))


def test_an_audience_of_a_csi_driver_is_allowed(cluster: Cluster) -> None:
    cluster.admin.create(
        "/apis/storage.k8s.io/v1/csidrivers",
        {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
         "metadata": {"name": "csi.example.com"},
         "spec": {"tokenRequests": [{"audience": "storage"}],
                  "volumeLifecycleModes": ["Ephemeral", "Persistent"]}},
    )  # fmt: skip
    pod = cluster.pod("csi", volumes=[{"name": "v", "csi": {"driver": "csi.example.com"}}])
    cluster.n1.create(TOKEN, token_request(pod, "storage"))
    plain = cluster.pod("no-csi")
    refused(cluster, "POST", TOKEN, token_request(plain, "storage"))


def test_an_audience_that_rbac_grants_is_allowed(cluster: Cluster) -> None:
    pod = cluster.pod("granted")
    refused(cluster, "POST", TOKEN, token_request(pod, "registry"))
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    cluster.admin.create(
        f"{rbac}/clusterroles",
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
         "metadata": {"name": "registry"},
         "rules": [{"apiGroups": [""], "resources": ["registry"],
                    "verbs": ["request-serviceaccounts-token-audience"]}]},
    )  # fmt: skip
    cluster.admin.create(
        f"{rbac}/clusterrolebindings",
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
         "metadata": {"name": "registry"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                     "name": "registry"},
         "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io",
                       "name": "system:nodes"}]},
    )  # fmt: skip
    end = time.monotonic() + 10
    while True:
        try:
            cluster.n1.create(TOKEN, token_request(pod, "registry"))
        except APIError:
            assert time.monotonic() < end
            time.sleep(0.1)
        else:
            return


def test_a_token_for_a_pod_that_was_just_created_is_allowed_200_times(cluster: Cluster) -> None:
    volume = {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    for number in range(200):
        pod = cluster.pod(f"quick-{number}", volumes=[volume])
        cluster.n1.create(TOKEN, token_request(pod))


def mirror_pod(cluster: Cluster, name: str, **spec: Any) -> dict[str, Any]:
    uid = cluster.admin.get("/api/v1/nodes/n1")["metadata"]["uid"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": True}
            ],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "pause"}], **spec},
    }


def test_mirror_pods_belong_to_the_own_node_and_reference_nothing(cluster: Cluster) -> None:
    cluster.n1.create(PODS, mirror_pod(cluster, "mirror-n1"))
    wrong = mirror_pod(cluster, "wrong-uid-n1")
    wrong["metadata"]["ownerReferences"][0]["uid"] = "1"
    refused(cluster, "POST", PODS, wrong)
    plain = mirror_pod(cluster, "plain-n1")
    del plain["metadata"]["annotations"]
    refused(cluster, "POST", PODS, plain)
    source = {"secret": {"name": "password"}}
    volumes = [{"name": "v", "projected": {"sources": [source]}}]
    message = refused(cluster, "POST", PODS, mirror_pod(cluster, "secret-n1", volumes=volumes))
    assert "spec.volumes[0].projected.sources[0].secret" in message


def certificate_request(pod: dict[str, Any], node: dict[str, Any], **spec: str) -> dict[str, Any]:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    metadata = pod["metadata"]
    pod_uid = spec.get("podUID", metadata["uid"])
    return {
        "apiVersion": "certificates.k8s.io/v1beta1",
        "kind": "PodCertificateRequest",
        "metadata": {"generateName": "pcr-"},
        "spec": {
            "signerName": SIGNER,
            "podName": metadata["name"],
            "podUID": pod_uid,
            "serviceAccountName": "web",
            "nodeName": "n1",
            "nodeUID": node["metadata"]["uid"],
            "maxExpirationSeconds": 86400,
            "pkixPublicKey": base64.b64encode(public).decode(),
            "proofOfPossession": base64.b64encode(key.sign(pod_uid.encode())).decode(),
            **spec,
        },
    }


def test_pod_certificates_are_for_own_pods_in_their_own_name(cluster: Cluster) -> None:
    path = "/apis/certificates.k8s.io/v1beta1/namespaces/default/podcertificaterequests"
    node = cluster.admin.get("/api/v1/nodes/n1")
    account = cluster.admin.get("/api/v1/namespaces/default/serviceaccounts/web")
    uid = {"serviceAccountUID": account["metadata"]["uid"]}
    mounts = {
        "signerName": SIGNER,
        "keyType": "ED25519",
        "credentialBundlePath": "bundle.pem",
    }
    volumes = [{"name": "c", "projected": {"sources": [{"podCertificate": mounts}]}}]
    pod = cluster.pod("certified", volumes=volumes)
    foreign = cluster.pod("certified-elsewhere", "n2", volumes=volumes)
    cluster.n1.create(path, certificate_request(pod, node, **uid))
    other_signer = {"signerName": "example.com/other", **uid}
    message = refused(cluster, "POST", path, certificate_request(pod, node, **other_signer))
    assert "example.com/other" in message
    refused(cluster, "POST", path, certificate_request(foreign, node, **uid))
    refused(cluster, "POST", path, certificate_request(pod, node, **uid), user="n2")
    wrong = {"serviceAccountName": "default", **uid}
    refused(cluster, "POST", path, certificate_request(pod, node, **wrong))
    for field in ("podUID", "nodeUID", "serviceAccountUID"):
        other = {**uid, field: "00000000-0000-0000-0000-000000000000"}
        body = certificate_request(pod, node, **other)
        # It may be our view that is old: the kubelet is to try again.
        assert field in refused(cluster, "POST", path, body, code=500)


def test_who_is_no_node_is_not_asked_about(cluster: Cluster) -> None:
    cluster.admin.patch(
        "/api/v1/nodes/n2", {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}
    )


def same_as_the_cluster(cluster: Cluster) -> None:
    """A hostile and a good request that depend on fresh stores."""
    name = f"after-{time.monotonic_ns()}"
    volume = {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    pod = cluster.pod(name, volumes=[volume])
    cluster.n1.create(TOKEN, token_request(pod))
    refused(cluster, "POST", TOKEN, token_request(pod), user="n2")


def test_a_killed_api_server_and_a_compacted_etcd_leave_no_wrong_answer(cluster: Cluster) -> None:
    cluster.control_plane.kill_api_server()
    time.sleep(2)
    cluster.control_plane.compact()
    cluster.control_plane.start_api_server()
    cluster.control_plane.wait_ready()
    end = time.monotonic() + 30
    while True:
        try:
            same_as_the_cluster(cluster)
        except APIError as error:
            # Right after its start the API server may not know all of its own RBAC yet.
            if error.code not in (403, 500, 503, 429) or time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            break
    for _ in range(20):
        same_as_the_cluster(cluster)


def test_the_server_stops_cleanly_with_a_cluster(cluster: Cluster) -> None:
    os.kill(cluster.webhook.process.pid, signal.SIGUSR1)
    assert "debug" in cluster.webhook.wait_for_log("log level is now")[0]
    metrics = cluster.webhook.request("/readyz?verbose")[1].decode()
    assert "[+] store pods" in metrics
    assert all(json.loads(line)["level"] != "critical" for line in cluster.webhook.log)
