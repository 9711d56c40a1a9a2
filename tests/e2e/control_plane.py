"""etcd and kube-apiserver on loopback, from ``make assets`` or KUBEBUILDER_ASSETS."""

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from noderestrict.pki.issue import Authority, Leaf
from tests.serving.tls import authority, client_leaf, leaf

ISSUER = "https://kubernetes.default.svc"
#: Where ``make assets`` links its binaries.
BUILT = Path(__file__).parents[2] / ".assets"
#: The Kubernetes version to test against; without one the newest that is built.
VERSION = os.environ.get("KUBERNETES", "*.*[0-9]")
Object = dict[str, Any]


def assets() -> Path:
    """Return the folder of the binaries; skips the test if there is none."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    found = [Path(folder)] if folder else sorted(BUILT.glob(f"kubernetes-{VERSION}"), key=_minor)
    if not found:
        pytest.skip("no kube-apiserver to test against: make assets, or set KUBEBUILDER_ASSETS")
    return found[-1]


def _minor(folder: Path) -> int:
    return int(folder.name.rpartition(".")[2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class APIError(Exception):
    """The API server's answer that is no success."""

    def __init__(self, code: int, status: Object) -> None:
        super().__init__(f"{code}: {status.get('message', status)}")
        self.code = code
        self.status = status


class Client:
    """A user of the API, with a client certificate; threads wait for each other."""

    def __init__(self, port: int, ca: Authority, pair: Leaf, folder: Path, name: str) -> None:
        self._port = port
        self._file = folder / f"{name.replace(':', '-')}.pem"
        self._file.write_bytes(pair.certificate + pair.key)
        self._context = ssl.create_default_context(cadata=ca.certificate.decode())
        self._context.load_cert_chain(self._file)
        self._connection: http.client.HTTPSConnection | None = None
        self._lock = threading.Lock()
        self.ca, self.pair = ca, pair
        #: Of the last answer.
        self.warnings: list[str] = []

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """Return the answer's status and body."""
        with self._lock:
            return self._send(method, path, data, content_type)

    def _send(
        self, method: str, path: str, data: bytes | None, content_type: str
    ) -> tuple[int, bytes]:
        for attempt in range(2):
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(
                    "127.0.0.1", self._port, context=self._context, timeout=40
                )
            try:
                self._connection.request(method, path, data, {"Content-Type": content_type})
                response = self._connection.getresponse()
                answer = response.read()
                self.warnings = response.headers.get_all("Warning") or []
                break
            except (http.client.HTTPException, OSError):
                self._connection.close()
                self._connection = None
                if attempt:
                    raise
        return response.status, answer

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Return the answer's object; raises APIError."""
        data = json.dumps(body).encode() if body is not None else None
        code, answer = self.send(method, path, data, content_type)
        try:
            value: Object = json.loads(answer)
        except ValueError:
            value = {"message": answer.decode()}
        if code >= 400:
            raise APIError(code, value)
        return value

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def get(self, path: str) -> Object:
        return self.request("GET", path)

    def create(self, path: str, body: Object) -> Object:
        return self.request("POST", path, body)

    def delete(self, path: str) -> Object:
        return self.request("DELETE", f"{path}?gracePeriodSeconds=0")

    def patch(self, path: str, body: Object) -> Object:
        return self.request("PATCH", path, body, "application/merge-patch+json")

    def kubeconfig(self, port: int | None = None) -> Object:
        """Return a kubeconfig for this user."""

        def encoded(data: bytes) -> str:
            return base64.b64encode(data).decode()

        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": f"https://127.0.0.1:{port or self._port}",
                        "certificate-authority-data": encoded(self.ca.certificate),
                    },
                }
            ],
            "users": [
                {
                    "name": "u",
                    "user": {
                        "client-certificate-data": encoded(self.pair.certificate),
                        "client-key-data": encoded(self.pair.key),
                    },
                }
            ],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }


class ControlPlane:
    """A running etcd and API server; flags override or add to the API server's, "" drops one."""

    def __init__(self, flags: dict[str, str] | None = None, ca_file: Path | None = None) -> None:
        self.binaries = assets()
        self._folder = tempfile.TemporaryDirectory(prefix="control-plane-")
        self.folder = Path(self._folder.name)
        self.ca = authority()
        self.port = free_port()
        self._etcd_port = free_port()
        self._flags = flags or {}
        if ca_file is not None:
            ca_file.write_bytes(self.ca.certificate)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: list[Client] = []
        self._write_keys()
        peer_port = free_port()
        self._start(
            "etcd",
            "--data-dir", str(self.folder / "etcd"),
            "--listen-client-urls", f"http://127.0.0.1:{self._etcd_port}",
            "--advertise-client-urls", f"http://127.0.0.1:{self._etcd_port}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer_port}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer_port}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        )  # fmt: skip
        self.start_api_server()
        self.admin = self.user("admin", "system:masters")
        self.wait_ready()

    def _write_keys(self) -> None:
        serving = leaf(self.ca, "localhost", "127.0.0.1", "10.0.0.1", "kubernetes.default.svc")
        key = rsa.generate_private_key(65537, 2048)
        files = {
            "ca.crt": self.ca.certificate,
            "api.crt": serving.certificate,
            "api.key": serving.key,
            "sa.key": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        }
        for name, data in files.items():
            (self.folder / name).write_bytes(data)

    def _start(self, name: str, *arguments: str, process: str = "") -> None:
        process = process or name
        log = (self.folder / f"{process}.log").open("ab")
        self._processes[process] = subprocess.Popen(
            [self.binaries / name, *arguments], stdout=log, stderr=log, cwd=self.folder,
            # Hollow kubelets leave their folders behind.
            env={**os.environ, "TMPDIR": str(self.folder)},
        )  # fmt: skip
        log.close()

    def start_api_server(self) -> None:
        self._start_api_server("kube-apiserver", self.port, self._flags)

    def start_in_tree(self, process: str = "in-tree", **more: str) -> int:
        """Run another API server over the same etcd, with the in-tree plugins; return its port."""
        others = {"authorization-config", "authorization-mode"}
        flags = {
            **{flag: value for flag, value in self._flags.items() if flag not in others},
            "enable-admission-plugins": "NodeRestriction",
            # Webhooks are registered for both.
            "disable-admission-plugins": "ServiceAccount,ValidatingAdmissionWebhook",
            **{flag.replace("_", "-"): value for flag, value in more.items()},
        }
        return self.start_another(process, flags)

    def start_another(self, process: str, flags: dict[str, str], port: int | None = None) -> int:
        """Run another API server over the same etcd, and return its port.

        Args:
            process: its name, for ``stop_process``.
            flags: of this one alone, over the defaults; "" drops one.
            port: to take over; None for a free one.
        """
        port = port or free_port()
        self._start_api_server(process, port, flags)
        return port

    def stop_process(self, name: str) -> None:
        """End a process, so that it can write what it still has."""
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start_api_server(self, process: str, port: int, flags: dict[str, str]) -> None:
        at = self.folder
        all_flags = {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "secure-port": str(port),
            "tls-cert-file": str(at / "api.crt"),
            "tls-private-key-file": str(at / "api.key"),
            "client-ca-file": str(at / "ca.crt"),
            "service-account-issuer": ISSUER,
            "service-account-signing-key-file": str(at / "sa.key"),
            "service-account-key-file": str(at / "sa.key"),
            "service-cluster-ip-range": "10.0.0.0/24",
            "authorization-mode": "Node,RBAC",
            "disable-admission-plugins": "NodeRestriction,ServiceAccount",
            **flags,
        }
        arguments = (f"--{key}={value}" for key, value in all_flags.items() if value)
        self._start("kube-apiserver", *arguments, process=process)

    def needs(self, *names: str) -> None:
        """Skip the test if a binary is missing."""
        for name in names:
            if not (self.binaries / name).exists():
                pytest.skip(f"there is no {name} in {self.binaries}")

    def _admin_file(self) -> Path:
        kubeconfig = self.folder / "admin.kubeconfig"
        kubeconfig.write_text(json.dumps(self.admin.kubeconfig()))
        return kubeconfig

    def start_scheduler(self) -> None:
        """Run kube-scheduler."""
        self._start(
            "kube-scheduler",
            f"--kubeconfig={self._admin_file()}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.folder / 'scheduler'}",
        )

    def start_hollow_node(self, name: str, port: int | None = None) -> None:
        """Run a kubelet without containers, with a node's client certificate.

        Args:
            name: of the node.
            port: of what the kubelet connects to, if it is not the API server.
        """
        kubeconfig = self.folder / f"{name}.kubeconfig"
        kubeconfig.write_text(json.dumps(self.node(name).kubeconfig(port)))
        self._start(
            "kubemark",
            "--morph=kubelet",
            f"--name={name}",
            f"--kubeconfig={kubeconfig}",
            f"--kubelet-port={free_port()}",
            f"--kubelet-read-only-port={free_port()}",
            "--use-host-image-service=false",
            process=name,
        )

    def start_controllers(self, controllers: str, *flags: str) -> None:
        """Run controllers of kube-controller-manager, named as its flag names them."""
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self._admin_file()}",
            f"--controllers={controllers}",
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            f"--root-ca-file={self.folder / 'ca.crt'}",
            *flags,
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.folder / 'controllers'}",
        )

    def kubectl(self, kubeconfig: Path, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Return exit code and output of kubectl."""
        done = subprocess.run(
            [self.binaries / "kubectl", f"--kubeconfig={kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"HOME": str(self.folder), "PATH": os.environ["PATH"]},
        )
        return done.returncode, done.stdout + done.stderr

    def kill_api_server(self) -> None:
        process = self._processes["kube-apiserver"]
        process.kill()
        process.wait()

    def wait_ready(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self.admin.request("GET", "/readyz")
            except APIError as error:
                if error.code == 200 or time.monotonic() > end:
                    raise
            except OSError:
                if time.monotonic() > end:
                    log = (self.folder / "kube-apiserver.log").read_text()[-3000:]
                    raise AssertionError(f"the API server does not start: {log}") from None
            else:
                return
            time.sleep(0.2)

    def user(self, name: str, group: str = "", port: int | None = None) -> Client:
        """Return a client for a user with a certificate of the cluster's CA.

        Args:
            name: of the user.
            group: of the user.
            port: of another API server.
        """
        client = Client(
            port or self.port, self.ca, client_leaf(self.ca, name, group), self.folder, name
        )
        self._clients.append(client)
        return client

    def node(self, name: str, port: int | None = None) -> Client:
        """Return a kubelet's client."""
        return self.user(f"system:node:{name}", "system:nodes", port)

    def revisions(self) -> dict[str, str]:
        """Return the revision at which each key of etcd was changed last."""
        kv = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=20)
        start, end = (base64.b64encode(key).decode() for key in (b"/registry/", b"/registry0"))
        asked = {"key": start, "range_end": end, "keys_only": True}
        kv.request("POST", "/v3/kv/range", json.dumps(asked))
        found = json.loads(kv.getresponse().read())
        kv.close()
        return {base64.b64decode(one["key"]).decode(): one["mod_revision"] for one in found["kvs"]}

    def empty(self) -> None:
        """Make etcd forget everything."""
        kv = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=20)
        kv.request("POST", "/v3/kv/deleterange", json.dumps({"key": "AA==", "range_end": "AA=="}))
        assert "deleted" in json.loads(kv.getresponse().read())
        kv.close()

    def compact(self) -> None:
        """Make etcd forget all versions but the newest."""
        kv = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=20)
        kv.request("POST", "/v3/kv/range", json.dumps({"key": "AA=="}))
        revision = json.loads(kv.getresponse().read())["header"]["revision"]
        kv.request("POST", "/v3/kv/compaction", json.dumps({"revision": revision}))
        kv.getresponse().read()
        kv.close()

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._folder.cleanup()
