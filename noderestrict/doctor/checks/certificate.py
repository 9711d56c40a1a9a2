"""Does the API server accept the certificate that is served?"""

import asyncio
import base64
import datetime as dt
import ssl
from collections.abc import AsyncIterator

from cryptography import x509

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Address, Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned

_SOON = dt.timedelta(days=30)
_SECONDS = 10


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each webhook."""
    for webhook in await cluster.webhooks():
        client = webhook["clientConfig"]
        name = webhook["name"]
        bundle = base64.b64decode(client.get("caBundle") or "")
        if not bundle:
            yield failed(
                f"{name}: caBundle is empty: the API server cannot verify the webhook",
                "run noderestrict certs bootstrap, or let cert-manager inject the CA",
            )
            continue
        try:
            host, address = cluster.server(client)
        except ValueError as error:
            yield failed(
                f"{name}: invalid URL {client['url'][:200]!r}: {error}",
                "apply the rendered manifests again",
            )
            continue
        if address is None:
            yield warned(
                f"{name}: its Service is not reachable from here",
                "forward a port to it, and pass --connect HOST:PORT",
            )
            return
        yield await _served(name, bundle, host, address)


async def _served(name: str, bundle: bytes, host: str, address: Address) -> Finding:
    at = f"{name} at {address[0]}:{address[1]}"
    try:
        context = ssl.create_default_context(cadata=bundle.decode("ascii", "replace"))
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=host)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason
        return failed(
            f"{at}: caBundle does not verify the certificate served for {host!r}: {reason}",
            "run noderestrict certs check",
        )
    except (OSError, TimeoutError) as error:
        return failed(
            f"{at}: no answer: {error or type(error).__name__}", "check that the server is running"
        )
    peer = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    left = x509.load_der_x509_certificate(peer).not_valid_after_utc - dt.datetime.now(dt.UTC)
    if left < _SOON:
        return warned(
            f"{at}: the certificate expires in {left.days} days",
            "run noderestrict certs rotate, or check cert-manager",
        )
    return passed(f"{at}: verified for {host!r}, valid for {left.days} days")


CHECK = Check("certificate", "Does caBundle verify the served certificate?", check)
