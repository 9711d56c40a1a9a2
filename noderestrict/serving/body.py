"""Read the body of a request, within limits."""

from aiohttp import web

from noderestrict.serving.connections import arrived_body, body_clock, is_shed
from noderestrict.serving.http import HTTPError, OverloadedError
from noderestrict.serving.limits import Limits
from noderestrict.telemetry.metrics import Metrics


class BodyReader:
    """Reads the JSON of a request.

    Args:
        limits: on its size and on the time that it takes to arrive.
        metrics: counted into.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the body of a request whose headers have arrived.

        Raises:
            HTTPError: 400 for another content type or a body that cannot be read, 408 for a slow
                client, 413 for a large body, 415 for a compressed one.
            OverloadedError: other requests hold too many bytes.
        """
        self._check_headers(request)
        body = arrived_body(request)
        if not body:
            body = await self._receive(request)
        elif is_shed(request):
            raise OverloadedError("bytes")
        if len(body) > self._limits.body_bytes:
            raise self._too_large()
        self._metrics.body_bytes.observe(len(body))
        return body

    def _check_headers(self, request: web.BaseRequest) -> None:
        size = request.content_length
        if size is not None and size > self._limits.body_bytes:
            raise HTTPError(
                413, f"the body has {size} bytes; the limit is {self._limits.body_bytes} bytes"
            )
        kind = request.headers.get("Content-Type")
        if kind != "application/json" and request.content_type != "application/json":
            raise HTTPError(
                400, f"Content-Type is {request.content_type[:80]!r}; application/json is needed"
            )
        if "Content-Encoding" in request.headers:
            # The API server sends none, and a few bytes could unpack to many.
            raise HTTPError(415, "Content-Encoding is not supported: send plain JSON")

    async def _receive(self, request: web.BaseRequest) -> bytes:
        """Return a body as it arrives; see ``read``."""
        chunks: list[bytes] = []
        size = 0
        try:
            async with body_clock(request, self._limits.body_seconds):
                while chunk := await request.content.readany():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > self._limits.body_bytes:
                        raise self._too_large()
        except TimeoutError:
            if is_shed(request):
                raise OverloadedError("bytes") from None
            raise HTTPError(
                408, f"the body did not arrive within {self._limits.body_seconds:g} s"
            ) from None
        except (web.RequestPayloadError, ConnectionError) as error:
            # The stream keeps the error, and its traceback would keep all that was read.
            error.__traceback__ = None
            raise HTTPError(400, f"the body cannot be read: {error}") from None
        except RuntimeError:
            if request.transport is not None:
                raise
            raise HTTPError(400, "the client is gone") from None
        return b"".join(chunks)

    def _too_large(self) -> HTTPError:
        return HTTPError(413, f"the body is over {self._limits.body_bytes} bytes")
