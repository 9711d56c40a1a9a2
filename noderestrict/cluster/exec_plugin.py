"""Run exec credential plugins.

The source is k8s.io/client-go/plugin/pkg/client/auth/exec/exec.go.
"""

import asyncio
import base64
import contextlib
import datetime as dt
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec

from noderestrict.cluster.access import Cluster, Plugin
from noderestrict.cluster.errors import ClusterError, ConnectionFailedError
from noderestrict.cluster.issued import Issued
from noderestrict.policy.hostile import brief

GROUP = "client.authentication.k8s.io"
VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1beta1")
#: A plugin that asks nobody has this long.
_SECONDS = 60.0
_END_SECONDS = 5.0
_LONGEST_OUTPUT = 1024 * 1024
_LONGEST_COMPLAINT = 4096
_SHOWN = 300


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    status: _Status | None = None


async def run_plugin(plugin: Plugin, cluster: Cluster) -> Issued:
    """Run a plugin, and return what it issues.

    Raises:
        ConnectionFailedError: it cannot be run at all.
        ClusterError: it failed, or its output is unusable.
    """
    interactive = sys.stdin is not None and sys.stdin.isatty()
    if plugin.interactive == "Always" and not interactive:
        raise ConnectionFailedError(
            f"{plugin.where}.interactiveMode: 'Always', but standard input is no terminal"
        )
    interactive = interactive and plugin.interactive != "Never"
    code, output, complaint = await _output(
        plugin, _info(plugin, cluster, interactive), interactive
    )
    at = f"{plugin.where}.command: {plugin.command[0]!r}"
    if code:
        said = f": {complaint}" if complaint else ""
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        raise ClusterError(f"{at} {how}{said}")
    return _issued(output, plugin, at)


def _info(plugin: Plugin, cluster: Cluster, interactive: bool) -> str:  # noqa: FBT001 (internal)
    """Return the ExecCredential that tells the plugin what is asked of it."""
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster:
        about = {
            "server": cluster.server,
            "tls-server-name": cluster.tls_server_name,
            "insecure-skip-tls-verify": cluster.insecure,
            "certificate-authority-data": base64.b64encode(
                cluster.ca.read() if cluster.ca else b""
            ).decode(),
            "proxy-url": cluster.proxy,
            "config": cluster.exec_config,
        }
        spec["cluster"] = {key: value for key, value in about.items() if value}
    return json.dumps({"kind": "ExecCredential", "apiVersion": plugin.version, "spec": spec})


async def _output(
    plugin: Plugin,
    info: str,
    interactive: bool,  # noqa: FBT001 (internal)
) -> tuple[int, bytes, str]:
    """Return exit code and standard output of a run, and the end of what it complained about."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *plugin.command,
            env={**os.environ, **plugin.env, "KUBERNETES_EXEC_INFO": info},
            stdin=None if interactive else DEVNULL,
            stdout=PIPE,
            # Questions to the user are written there.
            stderr=None if interactive else PIPE,
            # So that whatever it has started can be ended with it.
            start_new_session=not interactive,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # asyncio itself would end the process alone, and might then wait for what it has started.
        with contextlib.suppress(OSError, ValueError):
            process = await starting
            _kill(process, whole_group=not interactive)
            await _ended(process)
        raise
    except (OSError, ValueError) as error:
        hint = f"; {' '.join(plugin.install_hint.split())}" if plugin.install_hint else ""
        raise ConnectionFailedError(
            f"{plugin.where}.command: {plugin.command[0]!r}: {_reason(error)}{hint[:_SHOWN]}"
        ) from None
    kill = partial(_kill, process, whole_group=not interactive)
    at = f"{plugin.where}.command: {plugin.command[0]!r}"
    try:
        async with asyncio.timeout(None if interactive else _SECONDS):
            output, complaint = await asyncio.gather(
                _read(process.stdout, kill), _end_of(process.stderr)
            )
            code = await process.wait()
    except TimeoutError:
        raise ClusterError(f"{at} did not end within {_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            kill()
            await _ended(process)
    if len(output) > _LONGEST_OUTPUT:
        raise ClusterError(f"{at} wrote over {_LONGEST_OUTPUT} bytes")
    return code, output, " ".join(complaint.decode("utf-8", "replace").split())[-_SHOWN:]


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or brief(error)


async def _read(stream: asyncio.StreamReader | None, kill: Callable[[], None]) -> bytes:
    """Return what a process writes; it is killed once that is too long."""
    pieces = bytearray()
    while piece := await stream.read(65536) if stream else b"":
        if len(pieces) <= _LONGEST_OUTPUT:
            pieces += piece
        else:
            kill()
    return bytes(pieces)


async def _end_of(stream: asyncio.StreamReader | None) -> bytes:
    """Return the last of what a process writes."""
    last = b""
    while piece := await stream.read(65536) if stream else b"":
        last = (last + piece)[-_LONGEST_COMPLAINT:]
    return last


def _kill(process: Process, *, whole_group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


async def _ended(process: Process) -> None:
    """Wait until a killed process is gone, but not for what has left its group."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            # What it wrote must be read, or asyncio never hears of its end.
            await asyncio.gather(_end_of(process.stdout), _end_of(process.stderr))
            await process.wait()


def _issued(output: bytes, plugin: Plugin, at: str) -> Issued:
    try:
        answer = msgspec.json.decode(output, type=_ExecCredential)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # The message of msgspec quotes no values, which may be secret.
        raise ClusterError(f"{at} did not write an ExecCredential: {brief(error)}") from None
    if (answer.api_version, answer.kind) != (plugin.version, "ExecCredential"):
        raise ClusterError(
            f"{at} wrote {answer.api_version[:100]} {answer.kind[:100]}, not {plugin.version} "
            f"ExecCredential"
        )
    status = answer.status or _Status()
    token = (status.token or "").strip()
    pair = (status.client_certificate_data or "").encode(), (status.client_key_data or "").encode()
    if not all(pair) and any(pair):
        raise ClusterError(f"{at} wrote only one of clientCertificateData and clientKeyData")
    if not token and not all(pair):
        raise ClusterError(f"{at} wrote neither a token nor a client certificate")
    expires = status.expiration_timestamp
    return Issued(
        token, pair if all(pair) else None, None if expires is None else expires.timestamp()
    )
