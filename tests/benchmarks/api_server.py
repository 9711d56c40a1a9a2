"""``make bench-api-server``: CPU time of an API server for what kubelets write all the time.

API servers with nothing, the in-tree plugin, the policies, the webhook, or both, run over one etcd,
and are measured in turns: whatever else the machine does falls on all of them alike, so that the
ratios say more than the times. Their time while nothing happens is taken off. Each webhook follows
its own API server, because an API server pays for that, too.
"""

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from noderestrict.render.policies import policies
from noderestrict.render.registration import (
    cluster_role,
    cluster_role_binding,
    webhook_configuration,
)
from tests.e2e.conftest import USER, let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import ISSUER, APIError, Client, ControlPlane
from tests.e2e.test_registration import LEASES, NODES, PODS, RBAC, WEBHOOKS, lease, pod
from tests.serving.tls import serving

Object = dict[str, Any]
_POLICY, _WEBHOOK = "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"
#: Admission plugins of each API server that is compared, on and off.
VARIANTS = {
    "none": ("", f"NodeRestriction,{_POLICY},{_WEBHOOK}"),
    "in-tree": ("NodeRestriction", f"{_POLICY},{_WEBHOOK}"),
    "policies": ("", f"NodeRestriction,{_WEBHOOK}"),
    "webhook": ("", f"NodeRestriction,{_POLICY}"),
    "both": ("", "NodeRestriction"),
}
FOLLOWED = ("webhook", "both")
NODE, IMAGES = "n1", 40
STRATEGIC = "application/strategic-merge-patch+json"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """An API server, and a kubelet's connection to it."""

    process: subprocess.Popen[bytes]
    node: Client

    def cpu(self) -> float:
        """Return the seconds of CPU time that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def node_status(node: Client, number: int) -> None:
    condition = {"type": "Ready", "status": "True", "reason": f"r{number}"}
    patch = {"status": {"conditions": [condition]}}
    node.request("PATCH", f"{NODES}/{NODE}/status", patch, STRATEGIC)


def lease_renewal(node: Client, number: int) -> None:
    node.patch(f"{LEASES}/{NODE}", {"spec": {"leaseDurationSeconds": 40 + number % 2}})


def pod_status(node: Client, number: int) -> None:
    patch = {"status": {"message": f"m{number}"}}
    node.request("PATCH", f"{PODS}/on-{NODE}/status", patch, STRATEGIC)


KINDS: dict[str, Callable[[Client, int], None]] = {
    "node status": node_status,
    "lease": lease_renewal,
    "pod status": pod_status,
}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, Measured]]:
    """Run all API servers, with a node and its pod."""
    control_plane = ControlPlane({"authorization-mode": "RBAC"})
    try:
        admin = control_plane.admin
        namespace_ready(admin)
        let_nodes_do_all(admin)
        admin.create(f"{RBAC}/clusterroles", cluster_role())
        user = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": USER}
        admin.create(f"{RBAC}/clusterrolebindings", cluster_role_binding(user))
        with contextlib.suppress(APIError):
            admin.create("/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}})
        images = [
            {"names": [f"registry.example.com/image-{number}@sha256:{number:064x}"], "sizeBytes": 1}
            for number in range(IMAGES)
        ]
        admin.create(NODES, {"metadata": {"name": NODE}, "status": {"images": images}})
        admin.create(LEASES, lease(NODE))
        admin.create(PODS, pod(f"on-{NODE}", NODE))
        admin_file = folder / "admin"
        admin_file.write_text(json.dumps(admin.kubeconfig()))
        text = yaml.safe_dump_all(policies())
        assert control_plane.kubectl(admin_file, "apply", "-f", "-", stdin=text)[0] == 0
        ports = {
            name: control_plane.start_another(
                name,
                {
                    "authorization-mode": "RBAC",
                    "enable-admission-plugins": on,
                    "disable-admission-plugins": f"ServiceAccount,{off}",
                },
            )
            for name, (on, off) in VARIANTS.items()
        }
        with contextlib.ExitStack() as stack:
            for name in FOLLOWED:
                at = folder / name
                at.mkdir()
                client = control_plane.user(USER, port=ports[name])
                (at / "kubeconfig").write_text(json.dumps(client.kubeconfig()))
                until(lambda client=client: client.get("/version") != {})  # type: ignore[misc]
                flags = ("--kubeconfig", str(at / "kubeconfig"), "--api-audiences", ISSUER)
                server = stack.enter_context(serving(at, *flags, ca=control_plane.ca, state=False))
                until(lambda server=server: server.request("/readyz")[0] == 200)  # type: ignore[misc]
                if name == FOLLOWED[0]:
                    url = f"https://127.0.0.1:{server.port}/validate"
                    bundle = base64.b64encode(control_plane.ca.certificate).decode()
                    admin.create(WEBHOOKS, webhook_configuration({"url": url, "caBundle": bundle}))
            found = {
                name: Measured(
                    control_plane._processes[name],
                    control_plane.node(NODE, port),
                )
                for name, port in ports.items()
            }
            for name, one in found.items():
                until(lambda one=one: one.node.get(f"{NODES}/{NODE}") != {})  # type: ignore[misc]
                enforced = name != "none"
                until(lambda one=one, enforced=enforced: refuses(one.node) is enforced)  # type: ignore[misc]
            control_plane.stop_process("kube-apiserver")
            yield found
    finally:
        control_plane.stop()


def refuses(node: Client) -> bool:
    """Tell whether the rules are in force."""
    taints = {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}
    try:
        node.request("PATCH", f"{NODES}/{NODE}?dryRun=All", taints, STRATEGIC)
    except APIError:
        return True
    return False


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while True:
        with contextlib.suppress(APIError, OSError):
            if holds():
                return
        assert time.monotonic() < end
        time.sleep(0.2)


def idle(servers: dict[str, Measured], seconds: float) -> dict[str, float]:
    """Return the share of a CPU that each takes while nothing happens."""
    before = {name: one.cpu() for name, one in servers.items()}
    time.sleep(seconds)
    return {name: (one.cpu() - before[name]) / seconds for name, one in servers.items()}


def burst(
    server: Measured, act: Callable[[Client, int], None], requests: int, rest: float
) -> float:
    """Return the microseconds of CPU time for one request."""
    before, start = server.cpu(), time.monotonic()
    for number in range(requests):
        act(server.node, number)
    took = server.cpu() - before - rest * (time.monotonic() - start)
    return took / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-api-server")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=100, help="of a kind, in each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as servers:
        for act in KINDS.values():
            for server in servers.values():
                burst(server, act, options.requests, 0)
        rest = idle(servers, 5)
        times: dict[tuple[str, str], list[float]] = {}
        start = time.monotonic()
        for number in range(options.rounds):
            names = list(servers)[number % len(servers) :] + list(servers)[: number % len(servers)]
            for kind, act in KINDS.items():
                for name in names:
                    took = burst(servers[name], act, options.requests, rest[name])
                    times.setdefault((kind, name), []).append(took)
        print(f"{time.monotonic() - start:.0f} s of load. For one request: µs of CPU time, and the")
        print("ratio to none of them; the median of the rounds, and where half of them lie")
        for what in KINDS:
            bare = times[what, "none"]
            cells = []
            for name in VARIANTS:
                own = times[what, name]
                ratios = [one / other for one, other in zip(own, bare, strict=True)]
                low, _, high = statistics.quantiles(ratios, n=4)
                cells.append(
                    f"{name} {statistics.median(own):.0f} "
                    f"×{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f})"
                )
            print(f"  {what:<12} {';  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
