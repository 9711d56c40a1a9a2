"""Does the API server accept the certificate that is served?"""

import asyncio
import base64
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Address, Cluster
from noderestrict.doctor.findings import Finding, failed, passed, warned
from noderestrict.doctor.probe import FORBIDDEN, is_from_webhook, probe
from noderestrict.pki.check import KeyPairError, check_chain
from noderestrict.pki.peer import served_chain
from noderestrict.pki.system_roots import system_roots

_SOON = dt.timedelta(days=30)
_SECONDS = 10


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each webhook."""
    for webhook in await cluster.webhooks():
        client = webhook["clientConfig"]
        name = webhook["name"]
        bundle = base64.b64decode(client.get("caBundle") or "")
        try:
            host, address = cluster.server(client)
        except ValueError as error:
            yield failed(
                f"{name}: invalid URL {client['url'][:200]!r}: {error}",
                "apply the rendered manifests again",
            )
            continue
        if address is None and not bundle:
            yield failed(
                f"{name}: caBundle is empty: the API server trusts the CAs of its own system, and "
                "whether they verify the webhook cannot be seen from here",
                "run noderestrict certs bootstrap, or let cert-manager inject the CA; or pass "
                "--connect HOST:PORT",
            )
            continue
        if address is None:
            yield warned(
                f"{name}: its server is not reachable from here",
                "forward a port to it, and pass --connect HOST:PORT",
            )
            return
        if await _is_elsewhere(cluster, address):
            yield warned(
                f"{name}: {address[0]}:{address[1]} does not answer here, but the API server gets "
                "answers from its own machine",
                "run doctor on a control-plane node, or forward a port to it and pass --connect "
                "HOST:PORT",
            )
            return
        yield await verdict(name, bundle, host, address)


async def _is_elsewhere(cluster: Cluster, address: Address) -> bool:
    """Tell whether a loopback address is one of another machine, where the server answers."""
    try:
        if not ipaddress.ip_address(address[0]).is_loopback:
            return False
    except ValueError:
        return False
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(*address)
    except (OSError, TimeoutError):
        refusal = await probe(cluster)
        return refusal is not None and refusal.code == FORBIDDEN and is_from_webhook(refusal)
    writer.close()
    return False


async def verdict(name: str, bundle: bytes, host: str, address: Address) -> Finding:
    """Return whether an API server accepts what is served.

    Args:
        name: of the webhook.
        bundle: its CA bundle, PEM; b"" for the CAs of the system.
        host: that the API server calls.
        address: where the server is reachable.
    """
    at = f"{name} at {address[0]}:{address[1]}"
    # Without caBundle, the API server trusts the CAs of its own system, which may be others.
    trust = "caBundle" if bundle else "caBundle is empty, and this system's CAs"
    verb = "does" if bundle else "do"
    now = dt.datetime.now(dt.UTC)
    try:
        chain = await served_chain(*address, host, _SECONDS)
        pair = check_chain(chain, now=now, dns_names=[host], roots=bundle or system_roots())
    except KeyPairError as error:
        return failed(
            f"{at}: {trust} {verb} not verify the certificate served for {host!r}: {error}",
            "run noderestrict certs check",
        )
    except ssl.SSLError as error:
        return failed(f"{at}: no TLS handshake: {error.reason}", "check that the server is running")
    except (OSError, TimeoutError) as error:
        return failed(
            f"{at}: no answer: {error or type(error).__name__}", "check that the server is running"
        )
    left = pair.chain_not_after - now
    if left < _SOON:
        return warned(
            f"{at}: the certificate expires in {left.days} days",
            "run noderestrict certs rotate, or check cert-manager",
        )
    if pair.warnings:
        return warned(
            f"{at}: verified for {host!r}, but {'; '.join(pair.warnings)}",
            "serve the certificate and the intermediates that issued it, and nothing else",
        )
    return passed(f"{at}: verified for {host!r}, valid for {left.days} days")


CHECK = Check("certificate", "Does caBundle verify the served certificate?", check)
