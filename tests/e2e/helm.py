"""Helm, from ``make helm-assets``, HELM or the PATH, and who runs pods without nodes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.control_plane import APIError, ControlPlane, free_port

ROOT = Path(__file__).parents[2]
CHART = ROOT / "manifests" / "chart"
BUILT = ROOT / ".assets" / f"helm-{os.environ.get('HELM_MAJOR', '4')}" / "helm"
NAMESPACE = "isolation"
SECONDS = 120
Object = dict[str, Any]


def helm_binary() -> str:
    """Return the path of Helm; skips the test if there is none."""
    found = os.environ.get("HELM") or (str(BUILT) if BUILT.exists() else shutil.which("helm"))
    if not found:
        pytest.skip("no helm to test with: make helm-assets, or set HELM")
    return found


class Helm:
    """Helm, with folders of its own.

    Args:
        folder: for its files.
        kubeconfig: of the cluster, None for none.
        where: returns a command as it is run where the cluster is reached.
    """

    def __init__(
        self,
        folder: Path,
        kubeconfig: Path | None = None,
        where: Callable[..., list[str]] = lambda *command: list(command),
    ) -> None:
        self._command = where(helm_binary())
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            **{f"HELM_{name}_HOME": str(folder / name) for name in ("CACHE", "CONFIG", "DATA")},
            **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
        }

    @property
    def forgets_hooks(self) -> bool:
        """Whether this is Helm 3."""
        return self("version", "--short").startswith("v3")

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Return what Helm prints."""
        done = subprocess.run(
            [*self._command, *arguments], env=self._environment, capture_output=True, text=True,
            timeout=700, check=False,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr


class Kubelet:
    """Runs our pods as processes: those of Jobs and of Helm's tests, and the server of a DaemonSet.

    No node matches, so a DaemonSet counts as ready, and its server runs on this machine,
    as it would beside an API server. A new server takes over before the old one ends.
    """

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self._control_plane = control_plane
        self._admin = control_plane.user("runner", "system:masters")
        self._folder = folder
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._generation = 0
        self._server: subprocess.Popen[bytes] | None = None
        #: Names of pods, and what they printed.
        self.outputs: list[tuple[str, str]] = []
        self.problems: list[str] = []
        #: What the server runs with.
        self.arguments: list[str] = []
        #: Whether servers may run.
        self.serves = True

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join(SECONDS)
            self._stop(self._server)

    def _run(self) -> None:
        while not self._end.wait(0.2):
            try:
                self._run_pods()
                self._run_server()
            except (APIError, OSError, KeyError) as error:
                # An object may be deleted while it is looked at.
                self.problems.append(repr(error))

    def _run_pods(self) -> None:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        for pod in self._admin.get(path)["items"]:
            if pod["status"].get("phase") != "Pending" or "deletionTimestamp" in pod["metadata"]:
                continue
            name = pod["metadata"]["name"]
            code, output = self._once(name, pod["spec"])
            self.outputs.append((name, output))
            phase = "Failed" if code else "Succeeded"
            with contextlib.suppress(APIError):
                self._admin.request(
                    "PATCH", f"{path}/{name}/status", {"status": {"phase": phase}},
                    "application/merge-patch+json",
                )  # fmt: skip

    def _once(self, name: str, spec: Object) -> tuple[int, str]:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        account = spec["serviceAccountName"]
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                 "spec": {"expirationSeconds": 600}}  # fmt: skip
        accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        token = self._admin.create(f"{accounts}/{account}/token", asked)["status"]["token"]
        (container,) = spec["containers"]
        arguments = self._mounted(container, spec, folder)
        done = subprocess.run(
            [sys.executable, "-m", "noderestrict", *arguments,
             "--kubeconfig", str(self._kubeconfig(token, folder))],
            capture_output=True, text=True, timeout=300, check=False, cwd=folder,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def _mounted(self, container: Object, spec: Object, folder: Path) -> list[str]:
        """Return the arguments of a container with paths of volumes on this machine."""
        arguments = [one for one in container["args"] if not one.startswith("--api-server=")]
        places = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        for volume in spec["volumes"]:
            for kind, plural, key in (
                ("configMap", "configmaps", "name"), ("secret", "secrets", "secretName"),
            ):  # fmt: skip
                if kind not in volume:
                    continue
                path = f"/api/v1/namespaces/{NAMESPACE}/{plural}/{volume[kind][key]}"
                data = self._admin.get(path)["data"]
                target = folder / volume["name"]
                target.mkdir()
                for name, text in data.items():
                    content = base64.b64decode(text) if kind == "secret" else text.encode()
                    (target / name).write_bytes(content)
                place = places[volume["name"]]
                arguments = [one.replace(place, str(target)) for one in arguments]
        return arguments

    def _kubeconfig(self, token: str, folder: Path) -> Path:
        value = self._admin.kubeconfig()
        value["users"][0]["user"] = {"token": token}
        file = folder / "kubeconfig"
        file.write_text(json.dumps(value))
        return file

    def _run_server(self) -> None:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
        items = self._admin.get(path)["items"] if self.serves else []
        if not items:
            self._stop(self._server)
            self._server, self._generation = None, 0
            return
        (found,) = items
        if found["metadata"]["generation"] == self._generation:
            return
        generation, spec = found["metadata"]["generation"], found["spec"]["template"]["spec"]
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        (container,) = spec["containers"]
        arguments = self._mounted(container, spec, folder)
        token = (folder / "token" / "token").read_text()
        metrics = free_port()
        arguments = [one for one in arguments if not one.startswith("--metrics-address=")]
        log = (self._folder / "server.log").open("ab")
        new = subprocess.Popen(
            [sys.executable, "-m", "noderestrict", *arguments,
             f"--metrics-address=127.0.0.1:{metrics}",
             "--kubeconfig", str(self._kubeconfig(token, folder))],
            stdout=log, stderr=log, cwd=folder, env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
        log.close()
        end = time.monotonic() + SECONDS
        while not _is_ready(metrics):
            assert new.poll() is None, (self._folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < end
            time.sleep(0.1)
        self._stop(self._server)
        self._server, self._generation, self.arguments = new, generation, arguments

    def _stop(self, server: subprocess.Popen[bytes] | None) -> None:
        if server is not None:
            server.terminate()
            server.wait(60)


def _is_ready(port: int) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
