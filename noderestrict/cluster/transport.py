"""TLS and proxies of connections that we open, as Go has them."""

import contextlib
import ipaddress
import os
import re
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import aiohttp

from noderestrict import __version__
from noderestrict.cluster.api_servers import Address, GivenAddresses

#: Of every request that we send. API servers call the field manager what stands before the slash.
USER_AGENT = f"noderestrict/{__version__}"
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def verifying_context(ca: bytes | None, *, insecure: bool = False) -> ssl.SSLContext:
    """Return a context for TLS clients that verifies servers as Go does.

    Go does not know VERIFY_X509_STRICT, which Python 3.13 sets and which refuses CAs without key
    identifiers, as EKS, GKE and old versions of kubeadm have. It trusts an intermediate CA without
    its root, and ignores common names.

    Args:
        ca: the CAs to trust, in PEM; None for the system's.
        insecure: accept any certificate.

    Raises:
        ValueError: ``ca`` has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        context.load_default_certs()
    else:
        for block in _CERTIFICATE.findall(ca):
            # As in Go, broken ones do not count.
            with contextlib.suppress(ssl.SSLError, ValueError):
                context.load_verify_locations(cadata=block.decode("ascii"))
        if not context.cert_store_stats()["x509"]:
            raise ValueError("no certificate in PEM")
    return context


def present(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Make a context authenticate with a client certificate.

    Args:
        context: of TLS clients.
        certificate: PEM chain, leaf first.
        key: PEM, unencrypted.

    Raises:
        ValueError: they are no pair; the message quotes nothing of them.
    """
    with _as_file(certificate) as certificate_file, _as_file(key) as key_file:
        try:
            # Without a password, OpenSSL would ask the terminal for one.
            context.load_cert_chain(certificate_file, key_file, password=b"")
        except ssl.SSLError as error:
            reason = (error.reason or "not PEM").replace("_", " ").lower()
            raise ValueError(f"OpenSSL refuses certificate and key: {reason}") from None


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Yield the name of a file with this content that no disk ever holds, where possible."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 (a descriptor)
            file.write(data)
            yield f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name


def client_session(
    context: ssl.SSLContext | None, addresses: Sequence[Address] = ()
) -> aiohttp.ClientSession:
    """Return a session that looks at neither the environment nor a .netrc file.

    Args:
        context: for TLS; None if there is none.
        addresses: what every name stands for; none to look names up.
    """
    return aiohttp.ClientSession(
        headers={"User-Agent": USER_AGENT},
        connector=aiohttp.TCPConnector(
            ssl=context or True,
            limit=100,
            resolver=GivenAddresses(addresses) if addresses else None,
            use_dns_cache=not addresses,
        ),
        trust_env=False,
        # Cookies would tie requests to one server behind a load balancer.
        cookie_jar=aiohttp.DummyCookieJar(),
        # A line of a watch may hold a large object.
        read_bufsize=2**21,
    )


def environment_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, as Go's ProxyFromEnvironment does.

    The source is golang.org/x/net/http/httpproxy.
    """
    target = urlsplit(url)
    host = target.hostname or ""
    name = f"{target.scheme}_proxy"
    proxy = os.environ.get(name.upper()) or os.environ.get(name)
    if not proxy or _is_local(host):
        return None
    excluded = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    port = target.port or {"http": 80, "https": 443}.get(target.scheme)
    if any(_excludes(one.strip().lower(), host, port) for one in excluded.split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _excludes(pattern: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY covers a host: an address, a network or a domain."""
    address = _address(host)
    if address is not None and "/" in pattern:
        try:
            return address in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    if _address(pattern) is None and pattern.rpartition(":")[2].isdigit():
        pattern, _, wanted = pattern.rpartition(":")
        if int(wanted) != port:
            return False
    if pattern == "*":
        return True
    if address is not None:
        return address == _address(pattern)
    domain = pattern.removeprefix("*")
    if domain.startswith("."):
        return bool(domain[1:]) and host.endswith(domain)
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))
