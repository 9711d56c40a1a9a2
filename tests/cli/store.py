"""An API server that only stores objects, and a TLS server, for commands that run to their end."""

import base64
import contextlib
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonpatch

Object = dict[str, Any]
#: What is sent as arrays as deep as an API server stores them.
DEEP = "<deep>"


class Store:
    """Objects by their path; ``refused`` says what is answered 403, as method and path."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.asked: list[tuple[str, str]] = []
        self.refused: set[tuple[str, str]] = set()
        #: Method, path with its query, and headers of every request.
        self.heads: list[tuple[str, str, dict[str, str]]] = []
        self._version = 0

    def put(self, path: str, value: Object) -> Object:
        self._version += 1
        metadata = {**value["metadata"], "resourceVersion": str(self._version)}
        self.objects[path] = {**value, "metadata": metadata}
        return self.objects[path]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Object]:
        self.asked.append((method, path))
        if (method, path) in self.refused:
            return 403, {"message": "forbidden"}
        if method == "POST":
            made = f"{path}/{body['metadata']['name']}"
            if made in self.objects:
                return 409, {"message": f"{made} already exists"}
            return 201, self.put(made, body)
        if path not in self.objects:
            return 404, {"message": f"{path} not found"}
        if method == "PUT":
            version = body["metadata"].get("resourceVersion")
            if version not in (None, self.objects[path]["metadata"]["resourceVersion"]):
                return 409, {"message": "the object has been modified"}
            return 200, self.put(path, body)
        if method == "PATCH":
            return 200, self.put(path, jsonpatch.apply_patch(self.objects[path], body))
        return 200, self.objects[path]

    def data(self, secret: str) -> dict[str, bytes]:
        """Return what a Secret of namespace noderestrict holds."""
        value = self.objects[f"/api/v1/namespaces/noderestrict/secrets/{secret}"]
        return {key: base64.b64decode(text) for key, text in value["data"].items()}


@contextlib.contextmanager
def stored(store: Store, folder: Path) -> Iterator[Path]:
    """Serve the store; yields a kubeconfig."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else head and body wait for each other's acknowledgement: 40 ms each.
        disable_nagle_algorithm = True

        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            store.heads.append((self.command, self.path, dict(self.headers)))
            code, value = store.answer(self.command, self.path.partition("?")[0], body)
            if isinstance(value, bytes):
                data = value
            else:
                data = json.dumps(value).replace(f'"{DEEP}"', "[" * 9995 + "]" * 9995).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_PATCH = do  # noqa: N815 (the names of the base class)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    file = folder / "kubeconfig"
    file.write_text(json.dumps(kubeconfig(f"http://127.0.0.1:{server.server_port}")))
    try:
        yield file
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(server: str) -> Object:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip


@contextlib.contextmanager
def served(store: Store, secret: str) -> Iterator[str]:
    """Serve TLS with what a Secret holds at the moment; yields HOST:PORT."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            data = store.data(secret)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.NamedTemporaryFile() as file:
                file.write(data["tls.crt"] + data["tls.key"])
                file.flush()
                context.load_cert_chain(file.name)
            with contextlib.suppress(OSError), context.wrap_socket(connection, True) as tls:
                tls.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
