"""A registry that gives its one image to whoever has a service account token for it.

``python -m tests.containers.registry FOLDER ADDRESS PORT`` serves what ``Builder.unpack`` has
written, until it is ended.
"""

import base64
import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

AUDIENCE = "registry"


def audiences(authorization: str) -> list[str]:
    """Return for whom the token is that a client has for its password."""
    try:
        password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")[2]
        payload = password.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["aud"]
    except (ValueError, LookupError):
        return []
    return [str(one) for one in found]


class Handler(BaseHTTPRequestHandler):
    """Answers what containerd asks when it pulls."""

    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if AUDIENCE not in audiences(self.headers.get("Authorization", "")):
            self._answer(HTTPStatus.UNAUTHORIZED, b"{}", "application/json")
        elif "/manifests/" in self.path:
            manifest = (self.folder / "manifest.json").read_bytes()
            self._answer(HTTPStatus.OK, manifest, json.loads(manifest)["mediaType"])
        elif "/blobs/" in self.path:
            blob = self.folder / self.path.rpartition(":")[2]
            self._answer(HTTPStatus.OK, blob.read_bytes(), "application/octet-stream")
        else:
            self._answer(HTTPStatus.OK, b"{}", "application/json")

    def _answer(self, code: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if code == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> None:
    folder, address, port = sys.argv[1:]
    Handler.folder = Path(folder)
    ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
