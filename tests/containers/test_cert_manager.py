"""cert-manager renews the certificate while nodes ask."""

import datetime as dt
import json
import time

import pytest

from noderestrict.render.workload import NAMESPACE
from tests.containers.cert_manager import run_cert_manager
from tests.containers.cluster import Cluster, until
from tests.containers.machine import Machine
from tests.containers.product import Product
from tests.containers.test_failures import breached, watched

pytestmark = [pytest.mark.cluster, pytest.mark.full]

CERTIFICATE = ("certificate/noderestrict-tls", "-n", NAMESPACE)
RENEWALS = 3
#: cert-manager issues nothing shorter: so each certificate is renewed after a minute.
SHORT = {"spec": {"duration": "1h", "renewBefore": "59m"}}


def revision(cluster: Cluster) -> int:
    """Return how many certificates cert-manager has issued."""
    return int(cluster.kubectl.json("get", *CERTIFICATE)["status"]["revision"])


def ask_for_renewal(cluster: Cluster) -> None:
    """Do as ``cmctl renew`` does."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = cluster.kubectl.json("get", *CERTIFICATE)["status"]["conditions"]
    asked = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered"}
    status = {"conditions": [*conditions, {**asked, "message": "", "lastTransitionTime": now}]}
    cluster.kubectl("patch", *CERTIFICATE, "--subresource=status", "--type=merge", "-p",
                    json.dumps({"status": status}))  # fmt: skip


def served(product: Product) -> set[str]:
    """Return the serial numbers of the certificates that our servers have."""
    cluster = product.cluster
    ask = "openssl s_client -connect {}:8443 < /dev/null 2> /dev/null | openssl x509 -noout -serial"
    return {
        cluster.exec(cluster.control_plane, "sh", "-c", ask.format(pod["status"]["podIP"])).strip()
        for pod in product.pods()
    }


def renewed(product: Product) -> None:
    """Wait until cert-manager renews the certificate, and every server has the new one."""
    before, revisions = served(product), revision(product.cluster)
    until("cert-manager renews it", lambda: revision(product.cluster) > revisions, 120)
    since = time.monotonic()
    until("every server has another", lambda: not served(product) & before, 20)
    print(f"  served within {time.monotonic() - since:.1f} s")


def test_renewals_lose_nothing_and_are_served_within_seconds(product: Product) -> None:
    cluster = product.cluster
    if not isinstance(cluster, Machine):
        pytest.skip("no cert-manager for this cluster")
    run_cert_manager(cluster)
    product.install("cert-manager")
    with watched(cluster) as traffic:
        cluster.kubectl("patch", *CERTIFICATE, "--type=merge", "-p", json.dumps(SHORT))
        ask_for_renewal(cluster)
        until("the certificate is short", lambda: revision(cluster) > 1)
        for _ in range(RENEWALS):
            renewed(product)
        traffic.wait(5)
    assert not breached(traffic)
    assert traffic.lost() == 0
