"""A server that cannot be trusted to refuse, or to be reached, is not ready."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noderestrict import admission
from noderestrict.policy.decision import Allowed
from noderestrict.policy.settings import Settings
from noderestrict.replay.state import load_state
from noderestrict.serving import background as background_module
from noderestrict.serving import selftest
from noderestrict.serving.app import App
from noderestrict.serving.background import Jobs
from noderestrict.serving.certificate_sources import CertificateFiles
from noderestrict.serving.certificates import Certificates
from noderestrict.serving.local import LocalJudge
from noderestrict.serving.server import ServerOptions, run
from noderestrict.serving.stop import Stop
from noderestrict.serving.tls_context import TlsOptions
from noderestrict.telemetry.metrics import Metrics
from tests.serving.clients import EXAMPLES, hang_up
from tests.serving.tls import DAY, NOW, authority, leaf, write_pair

SECOND = dt.timedelta(seconds=1)


@dataclass
class Running:
    """A whole server in this event loop; ``get`` asks it over TLS."""

    port: int
    metrics: Metrics
    certificates: Certificates
    stop: Stop

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self._context(), server_hostname="localhost"
        )
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            await hang_up(writer)
        return int(head.split()[1]), body

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    async def until(self, path: str, status: int) -> str:
        """Return the body once the status is that one."""
        async with asyncio.timeout(60):
            while True:
                found, body = await self.get(path)
                if found == status:
                    return body

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


class CheckingJudge(LocalJudge):
    """Judges like any, and knows something that readiness depends on."""

    def __init__(self) -> None:
        super().__init__(Settings.for_version(), load_state([str(EXAMPLES / "state.json")]))
        self.synced = True

    def checks(self) -> dict[str, bool]:
        return {"store pods": self.synced, "store nodes": True}


@contextlib.asynccontextmanager
async def started(
    folder: Path,
    judge: LocalJudge | None = None,
    jobs: Jobs | None = None,
    shutdown_delay: float = 0,
) -> AsyncIterator[Running]:
    write_pair(folder, leaf(authority()))
    metrics = Metrics()
    certificates = Certificates([CertificateFiles.in_directory(folder)], TlsOptions(), metrics)
    app = App(judge or CheckingJudge(), metrics)
    ports: asyncio.Queue[int] = asyncio.Queue()
    options = ServerOptions("127.0.0.1", 0, shutdown_delay=shutdown_delay)
    stops: list[Stop] = []

    async def serve() -> None:
        stops.append(Stop())
        await run(
            app, metrics, certificates, options,
            stop=stops[0], started=ports.put_nowait, background=jobs or {},
        )  # fmt: skip

    task = asyncio.create_task(serve())
    port = asyncio.create_task(ports.get())
    await asyncio.wait((task, port), return_when=asyncio.FIRST_COMPLETED)
    try:
        yield Running(port.result(), metrics, certificates, stops[0])
    finally:
        stops[0].ask()
        stops[0].ask()
        await task


def allow_everything(*_: Any, **__: Any) -> Allowed:
    return Allowed()


def break_down(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a defect")


def say_that_it_is_allowed(*_: Any, **__: Any) -> bytes:
    return b'{"response":{"allowed":true}}'


@pytest.mark.parametrize(
    ("function", "defect"),
    [("evaluate", allow_everything), ("evaluate", break_down), ("encode", say_that_it_is_allowed)],
)
async def test_a_server_that_would_allow_what_is_known_to_be_bad_is_not_ready_until_it_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, defect: Any
) -> None:
    monkeypatch.setattr(selftest, "_SECONDS", 0.001)
    monkeypatch.setattr(background_module, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(background_module, "_LONGEST_DELAY", 0.001)
    async with started(tmp_path) as server:
        assert (await server.get("/readyz"))[0] == 200
        assert server.value("noderestrict_self_test_ok") == 1
        with monkeypatch.context() as broken:
            broken.setattr(admission, function, defect)
            assert "[-] self-test" in await server.until("/readyz", 503)
            assert server.value("noderestrict_self_test_ok") == 0
            assert (await server.get("/livez"))[0] == 200
        await server.until("/readyz", 200)
        assert server.value("noderestrict_self_test_ok") == 1


async def test_a_server_whose_certificate_expires_is_not_ready(tmp_path: Path) -> None:
    async with started(tmp_path) as server:
        assert "[+] certificate" in (await server.get("/readyz?verbose"))[1]
        pair = server.certificates.pair
        assert pair is not None
        server.certificates.pair = dataclasses.replace(pair, not_after=NOW - SECOND)
        status, body = await server.get("/readyz")
        assert status == 503
        assert "[-] certificate" in body
        assert "[+] self-test" in body


def test_a_certificate_is_expired_from_its_last_moment_on_and_none_always(tmp_path: Path) -> None:
    certificates = Certificates([CertificateFiles.in_directory(tmp_path)], TlsOptions(), Metrics())
    assert certificates.expired(NOW)
    write_pair(tmp_path, leaf(authority(), lifetime=DAY, now=NOW))
    assert certificates.reload(NOW)
    assert certificates.pair is not None
    end = certificates.pair.not_after
    assert not certificates.expired(end - SECOND)
    assert certificates.expired(end)


async def test_a_server_is_as_ready_as_its_judge(tmp_path: Path) -> None:
    judge = CheckingJudge()
    async with started(tmp_path, judge) as server:
        assert await server.get("/readyz") == (200, "ok")
        judge.synced = False
        status, body = await server.get("/readyz")
        assert status == 503
        assert "[-] store pods" in body
        assert "[+] store nodes" in body
        assert body.endswith("not ready\n")
        judge.synced = True
        assert "[+] store pods" in (await server.get("/readyz?verbose"))[1]


async def test_a_job_of_a_server_that_ends_is_counted_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_module, "_FIRST_DELAY", 0)
    lives = 0
    third = asyncio.Event()

    async def job() -> None:
        nonlocal lives
        lives += 1
        if lives == 3:
            third.set()
            await asyncio.Event().wait()

    async with started(tmp_path, jobs={"store pods": job}) as server:
        async with asyncio.timeout(60):
            await third.wait()
        assert server.value("noderestrict_background_failures_total", job="store pods") == 2
        assert (await server.get("/readyz"))[0] == 200


async def test_a_server_that_stops_is_not_ready_but_answers_until_it_has_stopped(
    tmp_path: Path,
) -> None:
    async with started(tmp_path, shutdown_delay=3600) as server:
        server.stop.ask()
        assert "[-] shutdown" in await server.until("/readyz", 503)
        assert await server.get("/livez") == (200, "ok")


def test_a_certificate_that_expires_soon_is_told_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = authority()
    write_pair(tmp_path, ca.issue(("localhost",), lifetime=5 * DAY, now=NOW))
    certificates = Certificates([CertificateFiles.in_directory(tmp_path)], TlsOptions(), Metrics())

    def told(hours: int) -> int:
        certificates.reload(NOW + dt.timedelta(hours=hours))
        return sum("expires soon" in one.message for one in caplog.records)

    assert [told(hours) for hours in (1, 2, 24, 25, 26)] == [1, 1, 1, 2, 2]
    write_pair(tmp_path, ca.issue(("localhost",), lifetime=20 * DAY, now=NOW))
    assert told(60) == 2
