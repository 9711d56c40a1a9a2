"""One server takes over from another at the same addresses, and no request is lost."""

import contextlib
import http.client
import threading
from pathlib import Path
from typing import Any

import pytest

from noderestrict.serving import server as module
from tests.builders import review
from tests.e2e.control_plane import free_port
from tests.serving.tls import Server, authority, serving

REVIEW = review("leases", "UPDATE", name="n1", namespace="kube-node-lease")


class Caller:
    """Sends reviews until it is told to stop: on a connection that it keeps, and on new ones."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.answered = 0
        self.failed: list[str] = []

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        kept = self._connection()
        while not self._stop.is_set():
            for connection in (kept, self._connection()):
                try:
                    connection.request(
                        "POST", "/validate", REVIEW, {"Content-Type": "application/json"}
                    )
                    response = connection.getresponse()
                    assert b'"allowed":true' in response.read()
                    self.answered += 1
                except (OSError, http.client.HTTPException, AssertionError) as error:
                    self.failed.append(repr(error))
                    connection.close()
                if connection is not kept:
                    connection.close()
        kept.close()

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self._server.port, context=self._server.context, timeout=60
        )

    def wait_for(self, more: int) -> None:
        """Wait for more answers."""
        wanted = self.answered + more
        while self.answered < wanted and not self.failed:
            self._stop.wait(0.01)


@pytest.mark.parametrize("more", [(), ("--respawn",)])
def test_no_request_is_lost_while_one_server_replaces_another(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    ca = authority()
    flags = (*more, "--share-port", "--port", str(free_port()),
             "--metrics-address", f"127.0.0.1:{free_port()}")  # fmt: skip
    with contextlib.ExitStack() as servers:
        running = servers.enter_context(serving(tmp_path, *flags, ca=ca))
        with Caller(running) as caller:
            for _ in range(3):
                new = servers.enter_context(serving(tmp_path, *flags, ca=ca))
                caller.wait_for(20)
                assert running.stop() == 0
                # Probes get the answers of the server that is left.
                assert "noderestrict_self_test_ok" in new.metrics()
                caller.wait_for(20)
                running = new
        assert caller.failed == []
        assert caller.answered >= 120


class Starting:
    """Is ready when it has been asked often enough."""

    def __init__(self, asked: float) -> None:
        self.left = asked

    def ready(self) -> bool:
        self.left -= 1
        return self.left < 0


async def test_a_server_beside_another_listens_once_it_is_ready_or_has_waited_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_READY_POLL_SECONDS", 0)
    starting: Any = Starting(5)
    await module._until_ready(starting)
    assert starting.left == -1
    monkeypatch.setattr(module, "_READY_SECONDS", 0.01)
    never: Any = Starting(float("inf"))
    await module._until_ready(never)
