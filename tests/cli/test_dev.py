"""``serve --dev`` is for one's own machine: it starts, listens and stops as one expects there."""

import contextlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from noderestrict.cli import main
from tests.cli.process import PROGRAM, ROOT, SECONDS, STATE, environment, shell

SERVE = (*PROGRAM, "serve", "--dev", "--log-format", "console", "--state", STATE)
PAIR = ("ca.crt", "tls.crt", "tls.key")


class Server:
    """A server for development in a folder."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            [*SERVE, *flags],
            cwd=folder,
            env=environment(PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.port = 0

    def started(self) -> "Server":
        """Wait until it listens."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"https://127\.0\.0\.1:(\d+)/validate", line)
            if found:
                self.port = int(found[1])
                return self
        raise AssertionError(self.lines)

    def ended(self) -> int:
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    server = Server(folder, *flags)
    try:
        yield server.started()
    finally:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def listening(process: int) -> set[tuple[str, int]]:
    """Return the addresses at which a process listens over TCP."""
    inodes = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            found = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
            if found:
                inodes.add(found[1])
    addresses = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, _, port = fields[1].partition(":")
                words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
                addresses.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return addresses


def connected(server: Server, folder: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(folder / ".noderestrict-dev" / "ca.crt"))
    plain = socket.create_connection(("127.0.0.1", server.port), SECONDS)
    return context.wrap_socket(plain, server_hostname="localhost")


def asked(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(1000)


def settings(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, object]:
    assert main(["serve", "--print-config", *flags]) == 0
    found: dict[str, object] = yaml.safe_load(capsys.readouterr().out)
    return found


def test_only_this_machine_reaches_it_and_ctrl_c_ends_it_beside_open_connections(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--port", "0", "--metrics-address", "127.0.0.1:0") as server:
        addresses = listening(server.process.pid)
        assert len(addresses) == 2
        assert {host for host, _ in addresses} == {"127.0.0.1"}
        with connected(server, tmp_path) as idle, connected(server, tmp_path):
            assert b"200 OK" in asked(idle)
            server.process.send_signal(signal.SIGINT)
            assert server.ended() == 0
        assert server.process.stdout is not None
        rest = server.process.stdout.read()
        assert "shutdown_delay=0.0" in rest
        assert "Traceback" not in rest


def test_nothing_of_it_waits_after_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    found = settings(capsys, "--dev")
    assert found["shutdown-delay"] == 0
    assert found["bind-address"] == "127.0.0.1"
    assert found["metrics-address"] == "127.0.0.1:9090"
    # Without it nothing changes, and what is given wins.
    plain = settings(capsys)
    assert plain["shutdown-delay"] == 5
    assert plain["bind-address"] == "0.0.0.0"
    assert plain["metrics-address"] == "0.0.0.0:9090"
    assert settings(capsys, "--dev", "--shutdown-delay", "3")["shutdown-delay"] == 3
    assert settings(capsys, "--dev", "--bind-address", "::1")["bind-address"] == "::1"


def test_the_defaults_depend_on_dev_from_whatever_source(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("dev: true\nmetrics-address: ''\n")
    found = settings(capsys, "--config", str(file))
    assert (found["bind-address"], found["metrics-address"]) == ("127.0.0.1", "")
    monkeypatch.setenv("NODERESTRICT_DEV", "true")
    assert settings(capsys)["bind-address"] == "127.0.0.1"


@pytest.mark.parametrize(
    "flags",
    [
        ("--bind-address", "0.0.0.0"),
        ("--bind-address", ""),
        ("--bind-address", "::"),
        ("--bind-address", "192.0.2.1"),
        ("--bind-address", "example.com"),
        ("--metrics-address", "0.0.0.0:9090"),
        ("--metrics-address", ":9090"),
    ],
)
def test_an_address_that_others_reach_is_refused(
    flags: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--dev", "--state", STATE, *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"--dev: {flags[0]} " in err
    assert "is no loopback address" in err
    assert list(tmp_path.iterdir()) == []


def test_a_second_one_at_the_same_port_harms_nothing_of_the_first(tmp_path: Path) -> None:
    flags = ("--metrics-address", "")
    with serving(tmp_path, "--port", "0", *flags) as first:
        before = [(tmp_path / ".noderestrict-dev" / name).read_bytes() for name in PAIR]
        second = shell(
            f"$nr serve --dev --state {STATE} --port {first.port} --metrics-address ''",
            tmp_path,
            PYTHONPATH=str(ROOT),
        )
        assert second.returncode == 2
        assert second.stdout == b""
        assert (
            second.stderr
            == (
                f"noderestrict serve: cannot listen on 127.0.0.1:{first.port}: "
                "Address already in use\n"
            ).encode()
        )
        assert [(tmp_path / ".noderestrict-dev" / name).read_bytes() for name in PAIR] == before
        # Neither does one at another port, which serves the same pair.
        with serving(tmp_path, "--port", "0", *flags) as other:
            assert [(tmp_path / ".noderestrict-dev" / name).read_bytes() for name in PAIR] == before
            for server in (first, other):
                with connected(server, tmp_path) as connection:
                    assert b"200 OK" in asked(connection)


@pytest.mark.parametrize("spoilt", ["expired", "torn", "link", "other key", "missing"])
def test_a_pair_that_is_no_longer_good_is_replaced(spoilt: str, tmp_path: Path) -> None:
    from noderestrict.cli import tls_files

    folder = tmp_path / "dev"
    tls_files._make_dev_pair(folder)
    kept = [(folder / name).read_bytes() for name in PAIR]
    tls_files._make_dev_pair(folder)
    assert [(folder / name).read_bytes() for name in PAIR] == kept
    match spoilt:
        case "expired":
            tls_files._make_dev_pair(tmp_path / "old", lifetime_days=1)
            for name in PAIR:
                shutil.copy(tmp_path / "old" / name, folder / name)
        case "torn":
            (folder / "tls.crt").write_bytes(kept[1][:100])
        case "link":
            (folder / "tls.key").rename(tmp_path / "tls.key")
            (folder / "tls.key").symlink_to(tmp_path / "tls.key")
        case "other key":
            tls_files._make_dev_pair(tmp_path / "other")
            shutil.copy(tmp_path / "other" / "tls.key", folder / "tls.key")
        case _:
            (folder / "ca.crt").unlink()
    spoilt_pair = [file.read_bytes() for file in folder.iterdir()]
    tls_files._make_dev_pair(folder)
    now = [(folder / name).read_bytes() for name in PAIR]
    assert not set(now) & {*kept, *spoilt_pair}
    assert not any((folder / name).is_symlink() for name in PAIR)


def test_make_alone_shows_the_help() -> None:
    done = shell("make -s --no-print-directory")
    assert done.returncode == 0
    assert b"\nrun " in done.stdout
    assert done.stdout == shell("make -s --no-print-directory help").stdout


def test_make_run_serves_for_this_machine_alone() -> None:
    command = shell("make -n --no-print-directory run").stdout.decode().splitlines()[-1]
    assert "noderestrict serve --dev " in command
    assert "--bind-address" not in command
