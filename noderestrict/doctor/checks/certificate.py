"""Does the API server accept the certificate that is served?"""

import asyncio
import base64
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Address, Cluster, Options
from noderestrict.doctor.findings import FAIL, Finding, failed, passed, unknown, warned
from noderestrict.doctor.probe import is_from_webhook, probe
from noderestrict.doctor.restore import restore
from noderestrict.errors import said
from noderestrict.pki.check import KeyPairError, check_chain
from noderestrict.pki.peer import served_chain
from noderestrict.pki.system_roots import system_roots
from noderestrict.render.workload import RENEWAL, TLS_SECRET

_SOON = dt.timedelta(days=30)
_SECONDS = 10
_SERVICE_PORT = "8443"


@dataclass(frozen=True, slots=True)
class _Server:
    """What webhooks have in common if one server answers all of them.

    Attributes:
        host: name that its certificate needs.
        address: where it is reachable from here; None if it is a Service.
        bundle: PEM, the CAs that must have signed its certificate.
        service: namespace and name, "" for a URL.
    """

    host: str
    address: Address | None
    bundle: bytes
    service: str


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each server."""
    webhooks = await cluster.webhooks()
    servers: dict[_Server, list[str]] = {}
    for webhook in webhooks:
        client, name = webhook["clientConfig"], webhook["name"]
        service = client.get("service") or {}
        try:
            host, address = cluster.server(client)
        except ValueError as error:
            yield failed(
                f"{name}: invalid URL {client['url'][:200]!r}: {error}",
                "apply the rendered manifests again",
                await restore(cluster),
            )
            continue
        bundle = base64.b64decode(client.get("caBundle") or "")
        at = f"{service['namespace']}/{service['name']}" if service else ""
        servers.setdefault(_Server(host, address, bundle, at), []).append(name)
    for server, names in servers.items():
        named = "" if len(names) == len(webhooks) else ", ".join(names)
        if server.address is None:
            found = await _by_api_server(cluster, server, names, alone=len(servers) == 1)
            yield replace(found, message=f"{named}: {found.message}" if named else found.message)
            continue
        if await _is_elsewhere(cluster, server.address):
            at = f"{named}: " if named else ""
            at += f"{server.address[0]}:{server.address[1]}"
            yield warned(
                f"{at} does not answer here, but the API server gets answers from its own machine",
                "run doctor on a control-plane node, or forward a port to it and pass --connect "
                "HOST:PORT",
                f"noderestrict doctor --connect 127.0.0.1:{_SERVICE_PORT}",
            )
            continue
        found = await verdict(named, server.bundle, server.host, server.address, cluster.options)
        if found.status == FAIL:
            found = replace(found, command=found.command or await restore(cluster))
        yield found


async def _by_api_server(
    cluster: Cluster, server: _Server, names: Sequence[str], *, alone: bool
) -> Finding:
    """Return what the API server makes of a certificate that cannot be seen from here.

    Args:
        cluster: with the API server.
        server: that serves the certificate.
        names: of the webhooks that it answers.
        alone: whether it answers all webhooks.
    """
    where = f"Service {server.service}"
    refusal = await probe(cluster)
    if refusal is not None and not (
        any(name in str(refusal) for name in names)
        or (alone and server.bundle and is_from_webhook(refusal))
    ):
        # Another webhook or somebody else has refused it.
        refusal = None
    if refusal is None and not server.bundle:
        return failed(
            f"{where}: caBundle is empty: the API server trusts the CAs of its own system, and "
            "whether they verify the webhook cannot be seen from here",
            "put the CA into it, or let cert-manager inject it; or pass --connect HOST:PORT",
            await restore(cluster),
        )
    if refusal is None:
        namespace, _, name = server.service.partition("/")
        return unknown(
            f"{where} is not reachable from here, and the API server did not show that it reaches "
            "it",
            "forward a port to it",
            f"kubectl -n {namespace} port-forward service/{name} {_SERVICE_PORT}:443 &\n"
            f"noderestrict doctor --connect 127.0.0.1:{_SERVICE_PORT}",
        )
    if refusal.code != HTTPStatus.FORBIDDEN:
        return failed(
            f"{where}: the API server gets no answer: {refusal}",
            "see whether the certificate is bad, or no server runs",
            _checking(cluster.options),
        )
    return passed(f"{where}: the API server verifies it")


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
        return (
            refusal is not None
            and refusal.code == HTTPStatus.FORBIDDEN
            and is_from_webhook(refusal)
        )
    writer.close()
    return False


async def verdict(
    name: str, bundle: bytes, host: str, address: Address, options: Options
) -> Finding:
    """Return whether an API server accepts what is served.

    Args:
        name: of the webhooks, "" for all.
        bundle: its CA bundle, PEM; b"" for the CAs of the system.
        host: that the API server calls.
        address: where the server is reachable.
        options: what the cluster is examined for.
    """
    pods = f"{options.kubectl} get pods"
    at = f"{address[0]}:{address[1]}"
    if name:
        at = f"{name} at {at}"
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
            "install the certificate again, with a CA that has signed it",
        )
    except ssl.SSLError as error:
        return failed(
            f"{at}: no TLS handshake: {error.reason}", "check that the server is running", pods
        )
    except (OSError, TimeoutError) as error:
        return failed(
            f"{at}: no answer: {said(error)}",
            "check that the server is running",
            pods,
        )
    left = pair.chain_not_after - now
    if left < _SOON:
        return warned(
            f"{at}: the certificate expires in {left.days} days",
            "renew it, or check cert-manager",
            f"{options.kubectl} create job --from=cronjob/{RENEWAL} now",
        )
    if pair.warnings:
        return warned(
            f"{at}: verified for {host!r}, but {'; '.join(pair.warnings)}",
            "serve the certificate and the intermediates that issued it, and nothing else",
            _checking(options),
        )
    return passed(f"{at}: verified for {host!r}, valid for {left.days} days")


def _checking(options: Options) -> str:
    return (
        f"noderestrict certs check --secret {options.namespace}/{TLS_SECRET} "
        f"--webhook-configuration {options.configuration}"
    )


CHECK = Check("certificate", "Does caBundle verify the served certificate?", check)
