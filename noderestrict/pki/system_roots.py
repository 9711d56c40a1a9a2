"""The CAs of the system, from where Go programs read them."""

import os
from pathlib import Path

#: The first that exists is read: Debian, Fedora, openSUSE, OpenELEC, CentOS, Alpine.
_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
#: All of them are read.
_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")


def system_roots() -> bytes:
    """Return the system's CAs as a PEM bundle, without what cannot be read."""
    chosen = os.environ.get("SSL_CERT_FILE")
    bundle = b""
    for file in (chosen,) if chosen else _FILES:
        found = _content(Path(file))
        if found is not None:
            bundle = found
            break
    folders = os.environ.get("SSL_CERT_DIR")
    for folder in folders.split(":") if folders else _DIRECTORIES:
        try:
            files = sorted(Path(folder).iterdir())
        except OSError:
            continue
        bundle += b"".join(b"\n" + found for file in files if (found := _content(file)))
    return bundle


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes() if file.is_file() else None
    except OSError:
        return None
