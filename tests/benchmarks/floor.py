"""The floor: an aiohttp application with uvloop and TLS that reads a body and answers constantly.

``python -m tests.benchmarks.floor DIR`` serves with the pair in DIR, and prints its port.
"""

import asyncio
import ssl
import sys
from pathlib import Path

import uvloop
from aiohttp import web

ANSWER = (
    b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":'
    b'{"uid":"00000000-0000-4000-8000-000000000000","allowed":true}}'
)


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


async def main(directory: Path) -> None:
    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_post("/validate", answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(Path(sys.argv[1])))
