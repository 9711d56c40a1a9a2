"""Does the server answer API servers alone, and does the API server show who it is?

Without a certificate of its clients the server answers whoever reaches its port. With it, an API
server that presents none is locked out, and what it asks about is refused.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence

from noderestrict.doctor.findings import Finding, failed, passed, warned

_CHECK = "client verification"
_SECONDS = 10
_COMPONENT = "manifests/components/client-verification"
#: What an API server says of a webhook that wants another certificate, or any: TLS alerts as Go
#: names them, or a connection that ended before it read the alert.
_REFUSED = ("certificate required", "bad certificate", "unknown certificate")
_ENDED = ("EOF", "connection reset", "broken pipe", "use of closed network connection")


async def demands_certificate(address: tuple[str, int]) -> bool | None:
    """Tell whether a server refuses clients without a certificate; None if it does not answer.

    Args:
        address: host and port.
    """
    context = ssl.create_default_context()
    # Another check verifies it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    writer = None
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(*address, ssl=context)
            # A handshake of TLS 1.3 succeeds at first: the server ends it when it has seen that
            # there is no certificate. One that takes anybody answers this, whatever its state.
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
            # A handshake that failed late leaves nobody to say goodbye to.
            writer.transport.abort()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()


def judge_clients(address: tuple[str, int], *, demanded: bool | None, failure: str) -> Finding:
    """Return what the server and the API server make of each other.

    Args:
        address: of the server.
        demanded: whether it refuses clients without a certificate, None for unknown.
        failure: why the API server could not ask it, "" if it could.
    """
    at = f"{address[0]}:{address[1]}"
    if any(text in failure for text in _REFUSED) or (
        demanded and any(text in failure for text in _ENDED)
    ):
        return failed(
            _CHECK, f"the server wants a certificate, and the API server presents no good one: "
            f"{failure}",
            f"give each API server the files of {_COMPONENT}/api-server",
        )  # fmt: skip
    if demanded is None:
        return warned(
            _CHECK, f"{at} does not tell whether it verifies clients", "is the server running?"
        )
    if not demanded:
        return warned(
            _CHECK, f"{at} answers whoever reaches it, which tells who may read what",
            f"add {_COMPONENT}, or let only API servers reach it",
        )  # fmt: skip
    if failure:
        return warned(_CHECK, f"the API server could not ask: {failure}", "see the other findings")
    return passed(
        _CHECK, f"{at} verifies its clients, and the API server that was asked here is one of them"
    )


async def check_clients(addresses: Sequence[tuple[str, int]], failure: str) -> list[Finding]:
    """Return a finding for each server.

    Args:
        addresses: of the servers that can be reached from here.
        failure: why the API server could not ask its webhook, "" if it could.
    """
    if not addresses and any(text in failure for text in _REFUSED):
        return [judge_clients(("the server", 443), demanded=None, failure=failure)]
    return [
        judge_clients(address, demanded=await demands_certificate(address), failure=failure)
        for address in addresses
    ]
