"""A registration is only as good as the API server's way to what it names."""

import json
from typing import Any

import jsonpatch
import pytest

from noderestrict.certs.reached import NAME, why_not_reached
from noderestrict.cluster.connection import ClusterError, Connection

SERVICE = {"service": {"name": "a", "namespace": "b"}, "caBundle": "YQ=="}
URL = {"url": "https://127.0.0.1:8443/", "caBundle": "YQ=="}


class APIServer(Connection):
    """Calls what is registered, and notices a change only after some requests.

    Args:
        served: the clients that somebody answers.
        late: requests until a change is noticed.
        after: requests until the servers answer.
    """

    def __init__(self, *served: Any, late: int = 2, after: int = 0) -> None:
        self.served, self.late, self.after = served, late, after
        self.installed: dict[str, Any] = {}
        self.seen: Any = None
        self.pending = self.version = 0
        self.calls: list[Any] = []
        self.time = 0.0

    async def post(self, path: str, body: Any, **options: Any) -> bytes:
        if path.endswith("validatingwebhookconfigurations"):
            return self._install(body)
        assert options["query"] == {"dryRun": "All"}
        if self.pending:
            self.pending -= 1
        elif self.installed:
            (self.seen,) = self.installed[NAME]["webhooks"]
        else:
            self.seen = None
        if self.seen is None:
            return b"{}"
        labels = body["metadata"]["labels"]
        assert self.seen["objectSelector"]["matchExpressions"][0]["key"] in labels
        client = self.seen["clientConfig"]
        self.calls.append(client)
        if client in self.served:
            self.after -= 1
            if self.after < 0:
                return b"{}"
        raise ClusterError(f'failed calling webhook "{self.seen["name"]}": refused', 500)

    def _install(self, body: Any) -> bytes:
        assert body["metadata"]["name"] == NAME
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.installed[NAME] = {**body, "metadata": metadata}
        self.pending = self.late
        return json.dumps(self.installed[NAME]).encode()

    async def get(self, path: str, *_: Any, **options: Any) -> bytes:
        if path.rpartition("/")[2] not in self.installed:
            raise ClusterError("not found", 404)
        return json.dumps(self.installed[NAME]).encode()

    async def json_patch(self, path: str, operations: Any, *, seconds: float = 30) -> bytes:
        assert path.endswith(NAME)
        return self._install(jsonpatch.apply_patch(self.installed[NAME], operations))

    async def delete(self, path: str, *, seconds: float = 30) -> bytes:
        if self.installed.pop(path.rpartition("/")[2], None) is None:
            raise ClusterError("not found", 404)
        return b"{}"

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def why(server: APIServer, *clients: Any, seconds: float = 60) -> str:
    registration = {"webhooks": [{"clientConfig": one} for one in clients]}
    found = await why_not_reached(
        server, registration, seconds, sleep=server.sleep, clock=lambda: server.time
    )
    assert server.installed == {}
    return found


@pytest.mark.parametrize("late", [0, 1, 5])
async def test_a_server_that_answers_is_served_however_late_a_change_is_noticed(late: int) -> None:
    server = APIServer(SERVICE, late=late)
    assert await why(server, SERVICE, SERVICE) == ""
    assert server.calls.count(SERVICE) == 1


@pytest.mark.parametrize("late", [0, 1, 5])
async def test_what_nobody_answers_is_not_served(late: int) -> None:
    problem = await why(APIServer(late=late), SERVICE, seconds=0)
    assert 'failed calling webhook "probe.noderestrict.io": refused' in problem


async def test_it_is_waited_for_a_server_that_starts() -> None:
    assert await why(APIServer(SERVICE, after=50), SERVICE, seconds=60) == ""
    assert "refused" in await why(APIServer(SERVICE, after=500), SERVICE, seconds=60)


async def test_every_address_has_to_answer() -> None:
    assert "refused" in await why(APIServer(SERVICE), SERVICE, URL)
    assert await why(APIServer(SERVICE, URL), SERVICE, URL) == ""


async def test_an_api_server_that_calls_no_webhook_is_told() -> None:
    assert "does not call webhooks" in await why(APIServer(SERVICE, late=10**6), SERVICE)


async def test_another_failure_is_not_taken_for_an_answer() -> None:
    class Denying(APIServer):
        async def post(self, path: str, body: Any, **options: Any) -> bytes:
            if path.endswith("configmaps"):
                raise ClusterError("forbidden", 403)
            return await super().post(path, body, **options)

    server = Denying(SERVICE)
    with pytest.raises(ClusterError, match="forbidden"):
        await why(server, SERVICE)
    assert server.installed == {}


@pytest.mark.parametrize("others", [None, SERVICE], ids=["begins", "asks for another"])
async def test_what_another_run_does_is_not_taken_for_an_answer(others: Any) -> None:
    class Shared(APIServer):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            installed = self.installed.get(NAME)
            if installed and installed["webhooks"][0]["clientConfig"] == URL:
                self.installed.clear()
                if others is not None:
                    webhook = {**installed["webhooks"][0], "clientConfig": others}
                    self._install({**installed, "webhooks": [webhook]})

    problem = await why(Shared(SERVICE, late=1), URL)
    assert problem == f"somebody else has changed {NAME}, as another run does: run it again"


async def test_what_a_killed_run_left_is_replaced() -> None:
    server = APIServer(SERVICE)
    server.installed[NAME] = {"webhooks": []}
    assert await why(server, SERVICE) == ""
