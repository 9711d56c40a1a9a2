"""Ask a TLS server for the certificates that it serves."""

import asyncio
import contextlib
import ssl
from typing import Any

_DER = 2


async def served_chain(host: str, port: int, name: str, seconds: float) -> list[bytes]:
    """Return the certificates that a server sends, leaf first, as DER; nothing is verified.

    Args:
        host: where to connect to.
        port: where to connect to.
        name: of the server, sent as SNI.
        seconds: how long to wait.

    Raises:
        OSError: there is no such server, it does not speak TLS, or not in time.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A weak certificate is still to be seen.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with asyncio.timeout(seconds):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    try:
        return _chain(writer.get_extra_info("ssl_object"))
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


def _chain(connection: Any) -> list[bytes]:
    if hasattr(connection, "get_unverified_chain"):
        found: list[bytes] = connection.get_unverified_chain()
        return found
    # Public since Python 3.13 only.
    return [one.public_bytes(_DER) for one in connection._sslobj.get_unverified_chain()]  # noqa: SLF001
