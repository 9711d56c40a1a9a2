"""An OpenID Connect provider for a real API server, and what it issues."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from noderestrict.pki.issue import Leaf

CLIENT = "noderestrict"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """Signs ID tokens of one user.

    Attributes:
        failures: how many exchanges to refuse from now on.
        exchanges: how many there were, refused ones included.
    """

    def __init__(self, user: str) -> None:
        self.url = ""
        self.failures = 0
        self.exchanges = 0
        self._user = user
        self._key = rsa.generate_private_key(65537, 2048)

    def token(self, seconds: float) -> str:
        """Return an ID token that lives so long."""
        now = time.time()
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": self._user, "iat": int(now),
            "exp": int(now + seconds), "jti": str(now),
        }  # fmt: skip
        header = {"alg": "RS256", "kid": "1", "typ": "JWT"}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"

    def get(self, path: str) -> dict[str, Any]:
        if path.endswith("/jwks"):
            numbers = self._key.public_key().public_numbers()
            key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1"}
            key["n"] = _encoded(numbers.n.to_bytes(256, "big"))
            key["e"] = _encoded(numbers.e.to_bytes(3, "big"))
            return {"keys": [key]}
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint": f"{self.url}/token",
            "authorization_endpoint": f"{self.url}/auth",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def exchange(self, form: dict[str, list[str]], seconds: float) -> dict[str, str] | None:
        self.exchanges += 1
        if self.failures:
            self.failures -= 1
            return None
        assert form["grant_type"] == ["refresh_token"]
        return {"id_token": self.token(seconds), "refresh_token": form["refresh_token"][0]}


@contextmanager
def issuing(user: str, pair: Leaf, folder: Path, seconds: float) -> Iterator[Issuer]:
    """Run an issuer whose exchanged tokens live so long."""
    issuer = Issuer(user)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(issuer.get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(issuer.exchange(parse_qs(body), seconds))

        def _answer(self, value: object | None) -> None:
            data = json.dumps(value or {}).encode()
            self.send_response(200 if value else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = folder / "issuer.pem"
    file.write_bytes(pair.certificate + pair.key)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    issuer.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
