"""A node's way to its API server, on which each write is first tried on another one.

The other API server has the in-tree plugin, and is asked for a dry run. Both requests are the same,
and the first one's audit ID is known: so an audit log can be compared with the plugin's verdicts.
"""

import contextlib
import http.client
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.control_plane import ControlPlane
from tests.serving.tls import leaf

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOP_BY_HOP = frozenset({"connection", "host", "transfer-encoding", "content-length"})
_CHUNK = 65_536
#: How long the plugin's informers may take, seconds.
_LAG = 1.0


@dataclass(frozen=True)
class Verdict:
    """What the in-tree plugin said to a write.

    Attributes:
        code: HTTP status of its API server's answer.
        request: method and path.
        hostile: whether a stolen credential sent it, rather than a kubelet.
        answer: the first bytes.
    """

    code: int
    request: str
    hostile: bool
    answer: str

    @property
    def refused(self) -> bool:
        """Whether the plugin refused the request; 404 is its answer where it misses a pod."""
        return self.code == 403 or "node restriction" in self.answer

    @property
    def allowed(self) -> bool:
        """Whether admission let the request pass; a conflict with what exists comes after it."""
        return self.code < 300 or (self.code == 409 and "already exists" in self.answer)


@dataclass
class Verdicts:
    """The verdicts by audit ID."""

    found: dict[str, Verdict] = field(default_factory=dict)


class Tee:
    """Forwards the requests of one node.

    Args:
        control_plane: of all API servers.
        node: whose credential is used.
        port: of the API server that carries requests out.
        plugin_port: of the API server with the in-tree plugin.
        verdicts: filled.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        node: str,
        port: int,
        plugin_port: int,
        verdicts: Verdicts,
    ) -> None:
        # A client writes its certificate into a file.
        self._pair = control_plane.node(node).pair
        self._port, self._plugin_port, self._verdicts = port, plugin_port, verdicts
        folder = Path(control_plane.folder)
        client, serving = folder / f"tee-{node}.pem", folder / f"tee-{node}-serving.pem"
        client.write_bytes(self._pair.certificate + self._pair.key)
        pair = leaf(control_plane.ca)
        serving.write_bytes(pair.certificate + pair.key)
        self._context = ssl.create_default_context(cadata=control_plane.ca.certificate.decode())
        self._context.load_cert_chain(client)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(serving)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]

    @contextlib.contextmanager
    def running(self) -> Iterator["Tee"]:
        """Forward for as long as the context lasts."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tee = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                try:
                    tee._forward(self, self.command, self.path, headers, body)
                except (OSError, http.client.HTTPException):
                    # One of the ends went away, or the API server starts again.
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815 (its names)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def send(
        self, method: str, path: str, body: bytes | None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Send a hostile request, and return the answer of the API server without the plugin."""
        headers = {"Content-Type": content_type, "User-Agent": "thief/1.0"}
        if method in _WRITES:
            headers["Audit-ID"] = self._tried(method, path, headers, body, hostile=True)
        connection = self._connect(self._port)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _connect(self, port: int, timeout: float | None = 30) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", port, context=self._context, timeout=timeout
        )

    def _tried(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        *,
        hostile: bool = False,
    ) -> str:
        """Let the plugin judge a write, and return the audit ID of the one that will be done."""
        audit_id = str(uuid.uuid4())
        dry = path if "dryRun=" in path else f"{path}{'&' if '?' in path else '?'}dryRun=All"
        connection = self._connect(self._plugin_port)
        try:
            for attempt in range(3):
                if attempt:
                    # Its informers may not have seen the pod yet.
                    time.sleep(_LAG / 2)
                connection.request(method, dry, body, headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status < 300 or hostile:
                    break
            text = answer[:600].decode(errors="replace")
            self._verdicts.found[audit_id] = Verdict(
                response.status, f"{method} {path} {(body or b'')[:200]!r}", hostile, text
            )
        finally:
            connection.close()
        return audit_id

    def _forward(
        self,
        handler: BaseHTTPRequestHandler,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
    ) -> None:
        if method in _WRITES:
            headers["Audit-ID"] = self._tried(method, path, headers, body)
        connection = self._connect(self._port, timeout=None)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            handler.send_response(response.status)
            for key, value in response.getheaders():
                if key.lower() not in _HOP_BY_HOP:
                    handler.send_header(key, value)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            while data := response.read1(_CHUNK):
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                handler.wfile.flush()
            handler.wfile.write(b"0\r\n\r\n")
        finally:
            connection.close()
