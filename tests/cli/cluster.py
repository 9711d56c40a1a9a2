"""An API server for commands that run as processes, with kubeconfigs of all kinds."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.cli.process import PROGRAM, ROOT, SECONDS, environment
from tests.cluster.world import World, pod

VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
TOKEN = "from-the-plugin"


class Recorder:
    """A cluster that keeps who asked.

    Attributes:
        who: authorization, and impersonation headers in their order, of each request.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.who: list[tuple[str, list[tuple[str, str]]]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = [(key, value) for key, value in request.headers.items() if "Imperson" in key]
        self.who.append((request.headers.get("Authorization", ""), headers))
        if request.path == "/version":
            return web.json_response(VERSION)
        return await self.world(request)


def world() -> World:
    """Return a cluster with two nodes, a pod and two Secrets."""
    secret = {"secretName": "used"}
    named = [("nodes", "n1"), ("nodes", "idle")]
    return World(
        pod("web", "n1", "ns", volumes=[{"name": "v", "secret": secret}]),
        *((f"/api/v1/{plural}/{name}", {"metadata": {"name": name}}) for plural, name in named),
        *(
            (f"/api/v1/namespaces/ns/secrets/{name}", {"metadata": {"name": name}})
            for name in ("used", "unused")
        ),
    )


@asynccontextmanager
async def running(recorder: Recorder) -> AsyncIterator[int]:
    """Serve, and yield the port."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", recorder.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def plugin(folder: Path) -> dict[str, Any]:
    """Return the user of an exec plugin, which writes a token."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": TOKEN},
    }
    script = folder / "plugin.py"
    script.write_text(f"print({json.dumps(json.dumps(credential))})\n")
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
            "interactiveMode": "Never",
        }
    }


def kubeconfig(file: Path, port: int, user: dict[str, Any], **context: str) -> Path:
    """Write a kubeconfig with one context, named after the file."""
    name = file.name
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config))
    return file


async def run(*arguments: str, **env: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of a command, while the cluster runs."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        env=environment(**{"PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **env}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
