"""HTTP errors and their bodies."""

import msgspec
from aiohttp import web

from noderestrict.errors import NoderestrictError
from noderestrict.policy.text import printable

_LONGEST_MESSAGE = 1000


class HTTPError(NoderestrictError):
    """A request that gets an HTTP error instead of a review.

    Attributes:
        code: HTTP status.
        headers: of the response, besides its Content-Type.
    """

    def __init__(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}


class OverloadedError(HTTPError):
    """A request that is rejected (503) because a limit was reached.

    Attributes:
        limit: its name, as in ``noderestrict_shed_requests_total``.
    """

    def __init__(self, limit: str) -> None:
        # The API server retries a 503 that has Retry-After; past the deadline it must not.
        headers = {} if limit == "deadline" else {"Retry-After": "1"}
        super().__init__(503, f"overloaded: the limit on {limit} is reached", headers)
        self.limit = limit


def error_response(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an HTTP error whose body is ``{"code": …, "message": …}``."""
    body = msgspec.json.encode({"code": code, "message": printable(message[:_LONGEST_MESSAGE])})
    return web.Response(
        body=body, status=code, headers={"Content-Type": "application/json", **(headers or {})}
    )
