"""Health endpoints: ``/livez`` and ``/readyz``."""

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from noderestrict.serving.state import ServerState

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


class Readiness(Protocol):
    """What readiness depends on besides the server itself."""

    def checks(self) -> Mapping[str, bool]:
        """Return whether each check passes, by name."""

    def details(self) -> Mapping[str, str]:
        """Return more about some of the checks, by name."""


class Health:
    """Answers health checks.

    Args:
        state: of the server.
        backend: what it answers reviews with.
    """

    def __init__(self, state: ServerState, backend: Readiness) -> None:
        self._state = state
        self._backend = backend

    def livez(self, _request: web.BaseRequest) -> web.Response:
        """Return 200: the event loop runs."""
        return web.Response(body=b"ok", headers=_TEXT)

    def ready(self) -> bool:
        """Tell whether every check passes."""
        return all({**self._state.checks(), **self._backend.checks()}.values())

    def readyz(self, request: web.BaseRequest) -> web.Response:
        """Return 200 if every check passes, else 503; the checks one by one if any fails."""
        checks = {**self._state.checks(), **self._backend.checks()}
        ready = all(checks.values())
        if "verbose" in request.query or not ready:
            details = {**self._state.details(), **self._backend.details()}
            lines = [
                f"[{'+' if ok else '-'}] {name}" + (f": {details[name]}" if name in details else "")
                for name, ok in checks.items()
            ]
            text = "\n".join((*lines, "ready" if ready else "not ready", ""))
        else:
            text = "ok"
        return web.Response(body=text.encode(), status=200 if ready else 503, headers=_TEXT)
