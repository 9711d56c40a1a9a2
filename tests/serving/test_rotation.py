"""Certificates change under load, and nobody notices."""

import asyncio
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderestrict.pki.issue import Authority, Leaf
from tests.serving.clients import EXAMPLES, Client, Tally
from tests.serving.tls import DAY, NOW, Server, authority, leaf, serving

ROTATIONS = 100
CLIENTS = 50
SERVED = '"serving certificate"'
STATE = ("--state", str(EXAMPLES / "state.json"))


def swap(directory: Path, number: int, certificate: bytes, key: bytes) -> None:
    """Change a mounted Secret as the kubelet does."""
    data = directory / f"..{number}"
    data.mkdir()
    (data / "tls.crt").write_bytes(certificate)
    (data / "tls.key").write_bytes(key)
    link = directory / "..data_tmp"
    link.symlink_to(data.name)
    link.replace(directory / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")


@pytest.fixture
def ca() -> Authority:
    return authority()


@pytest.fixture
def mounted(tmp_path: Path, ca: Authority) -> Path:
    pair = leaf(ca)
    swap(tmp_path, 0, pair.certificate, pair.key)
    return tmp_path


@pytest.fixture
def server(mounted: Path, ca: Authority) -> Iterator[Server]:
    with serving(mounted, *STATE, "--tls-poll", "0.02", ca=ca, state=False) as running:
        yield running


async def until_served(server: Server, times: int) -> None:
    async with asyncio.timeout(30):
        while sum(SERVED in line for line in server.log) < times:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.01)


async def test_no_request_and_no_handshake_fails_while_certificates_rotate(
    server: Server, mounted: Path, ca: Authority
) -> None:
    tally = Tally()
    clients = [
        # Half of them connect often, the others keep one connection over many rotations.
        Client(server.port, server.context, tally, reconnect=20 if number % 2 else 10**9)
        for number in range(CLIENTS)
    ]
    tasks = [asyncio.create_task(client.run(pause=0.05)) for client in clients]
    for number in range(1, ROTATIONS + 1):
        pair = leaf(ca)
        swap(mounted, number, pair.certificate, pair.key)
        await until_served(server, number + 1)
    for client in clients:
        client.stopping = True
    await asyncio.gather(*tasks)
    assert tally.failures == []
    assert tally.wrong == []
    assert tally.answers.keys() == {200}
    assert tally.answers[200] > CLIENTS


def bad_pairs(ca: Authority) -> Iterator[tuple[str, Leaf]]:
    good, other = leaf(ca), leaf(ca)
    yield "is empty", Leaf(b"", good.key)
    yield "", Leaf(good.certificate[: len(good.certificate) // 2], good.key)
    yield "", Leaf(good.certificate, good.key[: len(good.key) // 2])
    yield "", Leaf(good.certificate, other.key)
    yield "expired", leaf(ca, lifetime=DAY, now=NOW - dt.timedelta(days=3))
    yield "", Leaf(good.key, good.certificate)


async def test_a_bad_pair_is_told_once_and_the_good_one_stays(
    server: Server, mounted: Path, ca: Authority
) -> None:
    serial = server.log[0]
    for number, (_, pair) in enumerate(bad_pairs(ca), start=1):
        swap(mounted, number, pair.certificate, pair.key)
        async with asyncio.timeout(20):
            while True:
                told = [line for line in server.log if "certificate not taken" in line]
                if len(told) >= number:
                    break
                await asyncio.sleep(0.01)
        assert len(told) == number
        assert server.request("/livez")[0] == 200
    assert "expired" in "".join(told)
    assert sum(SERVED in line for line in server.log) == 1, serial
    pair = leaf(ca)
    swap(mounted, 99, pair.certificate, pair.key)
    await until_served(server, 2)


def test_an_unreadable_key_is_told_and_the_good_one_stays(server: Server, mounted: Path) -> None:
    (mounted / "..data" / "tls.key").unlink()
    assert "tls.key" in server.wait_for_log("certificate not taken")[0]
    assert server.request("/livez")[0] == 200


def test_a_missing_certificate_is_waited_for(tmp_path: Path, ca: Authority) -> None:
    pair = leaf(ca)
    refusals: list[str] = []

    def appear(line: str) -> None:
        if "certificate not taken" in line and not refusals:
            refusals.append(line)
            swap(tmp_path, 0, pair.certificate, pair.key)

    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    (tmp_path / "tls.key").symlink_to("..data/tls.key")
    with serving(tmp_path, ca=ca, pair=False, on_line=appear) as server:
        assert server.request("/livez")[0] == 200
    assert refusals
