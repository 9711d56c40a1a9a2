"""The metrics port: ``/metrics``, ``/livez`` and ``/readyz`` over plain HTTP."""

from aiohttp import web

from noderestrict.serving.app import App
from noderestrict.serving.connections import Connection, Server
from noderestrict.serving.limits import InFlight, Limits
from noderestrict.serving.room import Room
from noderestrict.serving.turns import Turns
from noderestrict.telemetry.metrics import Exposition, Metrics, content_type

#: Responses, so that scrapes do not delay reviews.
_PER_SECOND = 200


def metrics_server(app: App, metrics: Metrics, limits: Limits) -> Server:
    """Return a server for the metrics port; needs a running event loop.

    Args:
        app: answers the health checks.
        metrics: exposed.
        limits: of the whole process.
    """
    exposition = Exposition(metrics)
    turns = Turns(_PER_SECOND, burst=limits.metrics_connections)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await turns.wait()
        if request.path == "/metrics" and request.method == "GET":
            form = content_type(",".join(request.headers.getall("Accept", ())))
            return web.Response(body=exposition.text(form), headers={"Content-Type": form})
        if request.path in ("/livez", "/readyz"):
            return await app.handle(request)
        return web.Response(status=404, text="there is only /metrics, /livez and /readyz\n")

    limits = limits.on_metrics_port()
    room: Room[Connection] = Room(limits.connections, 0)
    metrics.open_connections("metrics", room.__len__)
    count_closed = metrics.closed_connections("metrics")
    return Server(handle, limits, room, InFlight(limits), count_closed, repeatable=True)
