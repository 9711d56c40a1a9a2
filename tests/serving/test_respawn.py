"""A server that a signal kills is replaced at once, and what connects meanwhile waits."""

import os
import signal
from pathlib import Path

import pytest

from noderestrict.serving import respawn
from noderestrict.serving.signals import HANDLED
from tests.builders import review
from tests.serving.test_signals import started, until
from tests.serving.tls import SECONDS, Server, serving

REVIEW = review("leases", "UPDATE", name="n1", namespace="kube-node-lease")


def child(server: Server) -> int:
    """Return the process that serves."""
    pid = server.process.pid
    (found,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(found)


def answers(server: Server) -> bool:
    status, body, _ = server.request("/validate", REVIEW)
    return status == 200 and b'"allowed":true' in body


def test_who_asks_after_a_server_was_killed_is_answered_by_the_next(tmp_path: Path) -> None:
    with serving(tmp_path, "--respawn") as server:
        killed = child(server)
        os.kill(killed, signal.SIGSEGV)
        assert answers(server)
        assert child(server) != killed
        assert "SIGSEGV" in server.wait_for_log("the server was killed")[0]
        server.process.send_signal(signal.SIGUSR1)
        server.wait_for_log("log level is now debug")
        assert server.stop() == 0


def test_a_server_that_is_killed_again_and_again_is_left_to_whoever_runs_it(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--respawn") as server:
        for _ in range(respawn._MOST):
            os.kill(child(server), signal.SIGKILL)
            assert answers(server)
        os.kill(child(server), signal.SIGKILL)
        assert server.process.wait(SECONDS) == 128 + signal.SIGKILL


def test_nobody_serves_on_after_the_parent_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "--respawn") as server:
        serves = child(server)
        server.process.kill()
        until("nobody serves", lambda: has_ended(serves))


def test_no_server_follows_once_the_parent_is_asked_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though the signal came while none ran, to which it could be handed on."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it forks"))
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        parent = respawn._Parent([])
        os.kill(os.getpid(), signal.SIGTERM)
        assert parent.stopping
        assert parent.fork() == -signal.SIGTERM
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(HANDLED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def has_ended(pid: int) -> bool:
    """Return whether a process does nothing any more, though nobody may have asked how it ended."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(") ")[2].startswith("Z")


def test_a_server_that_cannot_start_is_not_replaced(tmp_path: Path) -> None:
    with started(tmp_path, "--respawn", "--state=/nonexistent", f"--tls-dir={tmp_path}") as (
        process,
        log,
    ):
        assert process.wait(SECONDS) == 2
        assert len(log.read_text().splitlines()) == 1
