"""Read the body of a request, within limits."""

from aiohttp import web

from noderestrict.serving.connections import arrived_body, body_clock, is_shed
from noderestrict.serving.http import HTTPError, OverloadedError
from noderestrict.serving.limits import Limits
from noderestrict.telemetry.metrics import Metrics

_JSON = "application/json"


class BodyReader:
    """Reads the JSON of a request.

    Args:
        limits: on its size and on the time that it takes to arrive.
        metrics: counted into.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics

    def arrived(self, request: web.BaseRequest) -> bytes:
        """Return the body of a request, or b"" if it must be received.

        Raises:
            HTTPError: 400 for another content type, 413 for a large body, 415 for a compressed one.
        """
        headers = request.headers
        if headers.get("Content-Type") != _JSON and request.content_type != _JSON:
            raise HTTPError(
                400, f"Content-Type is {request.content_type[:80]!r}; {_JSON} is needed"
            )
        if "Content-Encoding" in headers:
            # The API server sends none, and a few bytes could unpack to many.
            raise HTTPError(415, "Content-Encoding is not supported: send plain JSON")
        body = arrived_body(request)
        if body:
            self._check_and_count(len(body))
        return body

    async def receive(self, request: web.BaseRequest) -> bytes:
        """Return the body of a request when it has arrived.

        Raises:
            HTTPError: 400 for a body that cannot be read, 408 for a slow client, 413 for a large
                body.
            OverloadedError: other requests hold too many bytes.
        """
        size = request.content_length
        if size is not None and size > self._limits.body_bytes:
            raise HTTPError(
                413, f"the body has {size} bytes; the limit is {self._limits.body_bytes} bytes"
            )
        body = await self._receive(request)
        self._check_and_count(len(body))
        return body

    def _check_and_count(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise self._too_large()
        self._metrics.body_bytes.observe(size)

    async def _receive(self, request: web.BaseRequest) -> bytes:
        """Return a body as it arrives; see ``receive``."""
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
