"""Does the server answer API servers only, and does the API server identify itself?

A server that does not verify its clients answers anyone who can reach its port. One that does
locks out an API server without a certificate, and the requests that depend on it are denied.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus

from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.check import Check
from noderestrict.doctor.cluster import Address, Cluster, Options
from noderestrict.doctor.findings import Finding, failed, passed, unknown, warned
from noderestrict.doctor.probe import is_from_webhook, probe
from noderestrict.doctor.restore import AS_ADMINISTRATOR
from noderestrict.doctor.workloads import SERVERS, Workload, values, workloads
from noderestrict.render.client_verification import FOLDER

_SECONDS = 10
_COMPONENT = "manifests/components/client-verification"
_FLAG = "--client-ca-file"
#: To type on each control-plane node.
_FILES = (
    f"sudo install -D -m 0644 -t {FOLDER} {_COMPONENT}/api-server/admission.yaml "
    f"{_COMPONENT}/api-server/webhooks.kubeconfig"
)
_ADD = (
    f'add {_COMPONENT}, see "Answer API servers alone" in docs/install.md, or let only API '
    "servers reach it"
)
_CONNECT = "noderestrict doctor --connect HOST:PORT"
#: What an API server reports when a webhook rejects its certificate or the lack of one: Go's names
#: of TLS alerts, or a connection that ended before the alert was read.
_REJECTED = ("certificate required", "bad certificate", "unknown certificate")
_ENDED = ("EOF", "connection reset", "broken pipe", "use of closed network connection")


async def check(cluster: Cluster) -> AsyncIterator[Finding]:
    """Yield a finding for each server that is reachable from here, or else for each workload."""
    reached = {cluster.server(one["clientConfig"])[1] for one in await cluster.webhooks()}
    refusal = await probe(cluster)
    if refusal is not None and not is_from_webhook(refusal) and not _is_denial(refusal):
        yield unknown(
            f"whether the API server can call the webhook could not be seen: {refusal}",
            "run it as an administrator",
            AS_ADMINISTRATOR,
        )
        return
    called = refusal is None or refusal.code == HTTPStatus.FORBIDDEN
    failure = "" if called else str(refusal)
    addresses = sorted(one for one in reached if one)
    found = await check_clients(addresses, failure, cluster.options)
    if reached and not found:
        found = [
            judge_workload(one, failure, cluster.options)
            for one in await workloads(cluster, cluster.options.namespace, SERVERS)
        ] or [unknown("no server is reachable from here", "say where one is", _CONNECT)]
    for finding in found:
        yield finding


def _is_denial(refusal: ClusterError) -> bool:
    """Tell whether admission refused a request, not the authorizers."""
    return refusal.code == HTTPStatus.FORBIDDEN and "impersonate" not in str(refusal)


def judge_workload(workload: Workload, failure: str, options: Options) -> Finding:
    """Return whether the servers of a workload verify the API server, by their flags.

    Args:
        workload: that serves.
        failure: why the API server could not call it, "" if it could.
        options: what the cluster is examined for.
    """
    flags = [value for command in workload.commands() for value in values(command, _FLAG)]
    if not flags:
        text = f"{workload} answers any client, and so reveals who can read what"
        return warned(text, _ADD, _adding(options))
    if failure:
        text = f"the API server could not call the webhook: {failure}"
        return unknown(text, "see its servers", _pods(options))
    return passed(f"{workload} verifies its clients")


async def demands_certificate(address: Address) -> bool | None:
    """Tell whether a server rejects clients without a certificate; None if it does not answer.

    Args:
        address: host and port.
    """
    context = ssl.create_default_context()
    # Another check verifies the certificate.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    writer = None
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(*address, ssl=context)
            # A TLS 1.3 handshake succeeds at first: the server closes the connection once it has
            # seen no certificate. One that accepts anyone answers this request.
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return not await reader.read(1)
    except ssl.SSLError as error:
        return True if "CERTIFICATE" in (error.reason or "") else None
    except ConnectionError:
        return True if writer is not None else None
    except (OSError, TimeoutError):
        return None
    finally:
        if writer is not None:
            # After a failed handshake, closing may fail as well.
            writer.transport.abort()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()


def judge_clients(
    address: Address, *, demanded: bool | None, failure: str, options: Options
) -> Finding:
    """Return whether the server verifies the API server.

    Args:
        address: of the server.
        demanded: whether it rejects clients without a certificate, None if unknown.
        failure: why the API server could not call it, "" if it could.
        options: what the cluster is examined for.
    """
    at = f"{address[0]}:{address[1]}"
    if any(text in failure for text in _REJECTED) or (
        demanded and any(text in failure for text in _ENDED)
    ):
        return failed(
            f"the server requires a client certificate, and the API server presents none that is "
            f"valid: {failure}",
            f"give each API server the files in {_COMPONENT}/api-server",
            _FILES,
        )
    if demanded is None:
        return unknown(
            f"{at}: no answer, so whether it verifies clients is unknown",
            "check that the server is running",
            _pods(options),
        )
    if not demanded:
        return warned(
            f"{at} answers any client, and so reveals who can read what",
            _ADD,
            _adding(options),
        )
    if failure:
        text = f"the API server could not call the webhook: {failure}"
        return unknown(text, "see its servers", _pods(options))
    return passed(f"{at} verifies its clients and accepts this API server")


def _pods(options: Options) -> str:
    return f"{options.kubectl} get pods"


def _adding(options: Options) -> str:
    return (
        f"{_FILES}\n"
        f"{options.kubectl} create configmap noderestrict-client-ca "
        "--from-file=ca.crt=/etc/kubernetes/pki/front-proxy-ca.crt"
    )


async def check_clients(
    addresses: Sequence[Address], failure: str, options: Options
) -> list[Finding]:
    """Return a finding for each server.

    Args:
        addresses: of the servers that are reachable from here.
        failure: why the API server could not call its webhook, "" if it could.
        options: what the cluster is examined for.
    """
    if not addresses and any(text in failure for text in _REJECTED):
        server = ("the server", 443)
        return [judge_clients(server, demanded=None, failure=failure, options=options)]
    return [
        judge_clients(
            address,
            demanded=await demands_certificate(address),
            failure=failure,
            options=options,
        )
        for address in addresses
    ]


CHECK = Check("client verification", "Does the server answer API servers only?", check)
