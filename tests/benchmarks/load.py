"""The load generator: ``python -m tests.benchmarks.load``, with a job as JSON on stdin.

It speaks just enough HTTP/1.1 over keep-alive TLS connections to saturate a server from one core.
"""

import asyncio
import json
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop


@dataclass(frozen=True)
class Job:
    """What to send.

    Attributes:
        url: of the server.
        body: path of the request's body.
        seconds: how long.
        connections: kept open.
        rate: requests a second over all connections; 0 for as many as there can be.
    """

    url: str
    body: str
    seconds: float
    connections: int = 8
    rate: float = 0


@dataclass
class Client:
    """One keep-alive connection.

    Attributes:
        url: of the server.
    """

    url: str
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, url: str) -> "Client":
        host, port = urlsplit(url).hostname or "", urlsplit(url).port or 443
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return cls(url, *await asyncio.open_connection(host, port, ssl=context))

    async def send(self, request: bytes) -> None:
        """Send a request, and take its answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{self.url}: {head[:100]!r}")
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        await self._reader.readexactly(int(lower[at : lower.index(b"\r", at)]))

    def close(self) -> None:
        self._writer.close()


def request_of(url: str, body: bytes) -> bytes:
    """Return an HTTP request as an API server sends it."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path}?timeout=3s HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Accept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "User-Agent: kube-apiserver-admission\r\n\r\n"
    )
    return head.encode() + body


async def _client(job: Job, request: bytes, ready: asyncio.Barrier, number: int) -> list[float]:
    client = await Client.connect(job.url)
    # All handshakes are done before the first request.
    await ready.wait()
    start = time.perf_counter()
    latencies = []
    gap = job.connections / job.rate if job.rate else 0.0
    due = start + gap * number / job.connections
    while (now := time.perf_counter()) < start + job.seconds:
        if gap:
            if due > now:
                await asyncio.sleep(due - now)
            # From when it was due, so that a server that falls behind does not look fast.
            begun = due
            due += gap
        else:
            begun = now
        await client.send(request)
        latencies.append(time.perf_counter() - begun)
    client.close()
    return latencies


async def run(job: Job) -> dict[str, float]:
    body = Path(job.body).read_bytes()  # noqa: ASYNC240 (before anything is measured)
    request = request_of(job.url, body)
    ready = asyncio.Barrier(job.connections)
    clients = (_client(job, request, ready, number) for number in range(job.connections))
    latencies = sorted(latency for found in await asyncio.gather(*clients) for latency in found)
    if not latencies:
        raise SystemExit(f"{job.url}: no answers")
    return {
        "requests": len(latencies),
        "per_second": len(latencies) / job.seconds,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(Job(**json.load(sys.stdin))))))
