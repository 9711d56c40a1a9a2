"""A kubelet pulls an image with a token of the pod's service account, which it needs us for."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.containers.cluster import CommandError, until
from tests.containers.machine import GATEWAY, Machine
from tests.containers.product import Product
from tests.containers.registry import AUDIENCE
from tests.containers.requests import TOKENS
from tests.containers.test_failures import run_servers
from tests.containers.traffic import refused_by_us

pytestmark = [pytest.mark.cluster, pytest.mark.full]

REGISTRY = f"{GATEWAY}:5000"
IMAGE = f"{REGISTRY}/pause:1"
FOLDER = "/etc/kubernetes/credential-provider"
FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
PROVIDER = r"""#!/bin/sh
token=$(sed -n 's/.*"serviceAccountToken":"\([^"]*\)".*/\1/p')
echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse",
"cacheKeyType":"Image","cacheDuration":"0s",
"auth":{"%s":{"username":"token","password":"'"$token"'"}}}'
""".replace("%s", REGISTRY)
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": AUDIENCE},
    "rules": [
        {
            "apiGroups": [""],
            "resources": [AUDIENCE],
            "verbs": ["request-serviceaccounts-token-audience"],
        }
    ],
}
CONFIGURATION = {
    "apiVersion": "kubelet.config.k8s.io/v1",
    "kind": "CredentialProviderConfig",
    "providers": [
        {
            "name": "provider",
            "matchImages": [REGISTRY],
            "defaultCacheDuration": "0s",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "tokenAttributes": {
                "serviceAccountTokenAudience": AUDIENCE,
                "cacheType": "Token",
                "requireServiceAccount": True,
            },
        }
    ],
}


@pytest.fixture
def registry(product: Product) -> Iterator[Product]:
    """A registry in the cluster's network, and a kubelet with a provider of credentials for it."""
    cluster = product.cluster
    if not isinstance(cluster, Machine):
        pytest.skip("it takes a kubelet with flags of ours")
    node = cluster.workers[0]
    images = cluster.folder / "registry"
    # The kubelet remembers that an image takes credentials, under whatever name: so one of its own.
    archive = cluster.builder.pause(IMAGE)
    cluster.builder.unpack(archive, images)
    command = (sys.executable, "-m", "tests.containers.registry", str(images), *REGISTRY.split(":"))
    server = subprocess.Popen(cluster.local(*command), stderr=subprocess.DEVNULL)
    hosts = f'[host."http://{REGISTRY}"]\ncapabilities = ["pull", "resolve"]\n'
    cluster.write(node, f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml", hosts)
    cluster.write(node, f"{FOLDER}/configuration.json", json.dumps(CONFIGURATION))
    cluster.write(node, f"{FOLDER}/provider", PROVIDER)
    cluster.exec(node, "chmod", "+x", f"{FOLDER}/provider")
    before = cluster.exec(node, "cat", FLAGS)
    options = {"config": f"{FOLDER}/configuration.json", "bin-dir": FOLDER}
    flags = " ".join(f"--image-credential-provider-{key}={one}" for key, one in options.items())
    try:
        cluster.write(node, FLAGS, f'KUBELET_KUBEADM_ARGS="{flags}"\n')
        cluster.restart_kubelet(node)
        yield product
    finally:
        cluster.write(node, FLAGS, before)
        cluster.restart_kubelet(node)
        server.kill()
        server.wait()
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", AUDIENCE, "--ignore-not-found")


def pulled(cluster: Machine, name: str) -> str:
    """Create a pod whose image has to be pulled; returns its name."""
    container = {"name": "c", "image": IMAGE, "imagePullPolicy": "Always"}
    spec = {"nodeName": cluster.workers[0], "serviceAccountName": "web",
            "terminationGracePeriodSeconds": 0, "containers": [container]}  # fmt: skip
    metadata = {"name": name, "namespace": "shop"}
    value = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(value))
    return name


def refused(cluster: Machine, since: float, why: str) -> bool:
    """Tell whether we refused the kubelet a token, in some words."""
    return any(
        refused_by_us(one)
        and one["requestURI"] == TOKENS
        and why in one["responseStatus"]["message"]
        for one in cluster.written(since)
    )


def events(cluster: Machine, name: str) -> str:
    return cluster.kubectl("get", "events", "-n", "shop", "-o", "jsonpath={..message}",
                           f"--field-selector=involvedObject.name={name}")  # fmt: skip


def test_an_image_is_pulled_with_a_token_that_needs_us(registry: Product) -> None:
    cluster = registry.cluster
    assert isinstance(cluster, Machine)
    kubectl = cluster.kubectl
    registry.install("control-plane")
    names, started = [], time.time()
    try:
        # The audience is one that no pod asks for: the node has to be granted it.
        names.append(pulled(cluster, "not-granted"))
        until("we refuse the token", partial(refused, cluster, started, "denied the request"))
        kubectl("create", "-f", "-", stdin=json.dumps(ROLE))
        kubectl("create", "clusterrolebinding", AUDIENCE, f"--clusterrole={AUDIENCE}",
                "--group=system:nodes")  # fmt: skip
        names.append(pulled(cluster, "granted"))
        running(cluster, "granted")
        # Without a server the pull waits, and goes on once there is one.
        run_servers(registry, False)
        until("no server runs", lambda: not registry.pods())
        names.append(pulled(cluster, "waiting"))
        until("nobody answers", partial(refused, cluster, started, "failed calling webhook"))
        run_servers(registry, True)
        registry.ready()
        running(cluster, "waiting")
    finally:
        for name in names:
            kubectl("delete", "pod", name, "-n", "shop", "--force", "--ignore-not-found")


def running(cluster: Machine, name: str) -> None:
    """Wait until a pod runs."""
    try:
        cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", "shop",
                        "--timeout=180s")  # fmt: skip
    except CommandError as error:
        raise AssertionError(f"{error}\n{events(cluster, name)}") from None
