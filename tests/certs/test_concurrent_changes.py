"""What is published into a cluster loses nobody else's change."""

from collections.abc import Callable
from typing import Any

import jsonpatch
import pytest
from aiohttp import web

from noderestrict.certs.configurations import change_bundles, read_bundles, write_registration
from noderestrict.certs.secret import data_of, read_secret, write_secret
from noderestrict.cluster.connection import ClusterError
from tests.certs.test_configurations import bundles, configuration
from tests.cluster.scripted import connected

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
PATH = f"{CONFIGURATIONS}/noderestrict"
SECRETS = "/api/v1/namespaces/ns/secrets"


class Registry:
    """Stores objects as an API server does: nobody overwrites what they have not seen.

    Attributes:
        objects: by path.
        meanwhile: called after each read with its path, as somebody else who is as quick.
        fails: status to answer, by method.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.meanwhile: Callable[[str], None] = lambda _path: None
        self.fails: dict[str, int] = {}
        self.asked: list[str] = []
        self._version = 100

    def put(self, path: str, value: Any) -> Any:
        self._version += 1
        meta = {**value["metadata"], "resourceVersion": str(self._version)}
        self.objects[path] = {**value, "metadata": meta}
        return self.objects[path]

    async def __call__(self, request: web.Request) -> web.Response:
        path, method = request.path, request.method
        self.asked.append(method)
        if method in self.fails:
            return web.json_response({"message": "no"}, status=self.fails[method])
        body: Any = await request.json() if request.can_read_body else None
        if method == "POST":
            if f"{path}/{body['metadata']['name']}" in self.objects:
                return web.json_response({"message": "already exists"}, status=409)
            return web.json_response(
                self.put(f"{path}/{body['metadata']['name']}", body), status=201
            )
        if path not in self.objects:
            return web.json_response({"message": "not found"}, status=404)
        found = self.objects[path]
        if method == "GET":
            self.meanwhile(path)
        elif method == "PUT":
            version = body["metadata"].get("resourceVersion", found["metadata"]["resourceVersion"])
            if version != found["metadata"]["resourceVersion"]:
                return web.json_response({"message": "conflict"}, status=409)
            found = self.put(path, body)
        else:
            try:
                found = self.put(path, jsonpatch.apply_patch(found, body))
            except jsonpatch.JsonPatchTestFailed:
                return web.json_response({"message": "test failed"}, status=422)
        return web.json_response(found)


@pytest.fixture
def registry() -> Registry:
    value = Registry()
    value.put(PATH, configuration(b"old"))
    return value


def somebody_else(registry: Registry, times: int) -> Callable[[str], None]:
    """Return what changes the bundles so often, each time after they were read."""
    left = times

    def change(path: str) -> None:
        nonlocal left
        if left:
            left -= 1
            registry.put(path, configuration(b"theirs"))

    return change


async def test_every_bundle_is_changed_once(registry: Registry) -> None:
    async with connected(registry) as connection:
        assert await change_bundles(connection, "noderestrict", lambda old: old + b"+new")
        assert bundles(registry.objects[PATH]) == {b"old+new"}
        assert await read_bundles(connection, "noderestrict") == {
            webhook["name"]: b"old+new" for webhook in registry.objects[PATH]["webhooks"]
        }
        registry.asked.clear()
        assert not await change_bundles(connection, "noderestrict", lambda old: old)
        assert registry.asked == ["GET"]


@pytest.mark.parametrize("times", [1, 4])
async def test_a_change_of_somebody_else_is_kept_and_built_upon(
    registry: Registry, times: int
) -> None:
    registry.meanwhile = somebody_else(registry, times)
    async with connected(registry) as connection:
        assert await change_bundles(connection, "noderestrict", lambda old: old + b"+new")
    assert bundles(registry.objects[PATH]) == {b"theirs+new"}
    assert registry.asked == ["GET", "PATCH"] * (times + 1)


async def test_who_is_always_too_late_gives_up(registry: Registry) -> None:
    registry.meanwhile = somebody_else(registry, 100)
    async with connected(registry) as connection:
        with pytest.raises(ClusterError) as error:
            await change_bundles(connection, "noderestrict", lambda old: old + b"+new")
    assert error.value.code == 422
    assert bundles(registry.objects[PATH]) == {b"theirs"}
    assert registry.asked.count("PATCH") == 5


@pytest.mark.parametrize("status", [403, 500])
async def test_what_is_refused_is_not_tried_again(registry: Registry, status: int) -> None:
    registry.fails["PATCH"] = status
    async with connected(registry) as connection:
        with pytest.raises(ClusterError) as error:
            await change_bundles(connection, "noderestrict", lambda old: old + b"+new")
    assert error.value.code == status
    assert registry.asked == ["GET", "PATCH"]


async def test_a_registration_is_never_written_over_a_change_that_was_not_seen(
    registry: Registry,
) -> None:
    registry.meanwhile = somebody_else(registry, 1)
    async with connected(registry) as connection:
        with pytest.raises(ClusterError) as error:
            await write_registration(connection, configuration(), lambda _old: b"new")
        assert error.value.code == 409
        assert bundles(registry.objects[PATH]) == {b"theirs"}
        await write_registration(connection, configuration(), lambda old: old + b"+new")
    assert bundles(registry.objects[PATH]) == {b"theirs+new"}


async def test_a_registration_that_is_not_there_is_made_and_one_that_is_hidden_is_not(
    registry: Registry,
) -> None:
    registry.objects.clear()
    async with connected(registry) as connection:
        registry.fails["GET"] = 403
        with pytest.raises(ClusterError):
            await write_registration(connection, configuration(), lambda _old: b"new")
        assert registry.objects == {}
        registry.fails.clear()
        await write_registration(connection, configuration(), lambda old: old + b"new")
    assert bundles(registry.objects[PATH]) == {b"new"}


async def test_of_what_was_there_only_labels_annotations_and_bundles_remain(
    registry: Registry,
) -> None:
    found = registry.objects[PATH]
    found["metadata"] |= {
        "labels": {"theirs": "1", "ours": "0"},
        "annotations": {"theirs": "1"},
        "finalizers": ["example.com/a"],
    }
    found["webhooks"][0] |= {"objectSelector": {"matchLabels": {"a": "b"}}, "x": 1}
    found["webhooks"].append({**found["webhooks"][0], "name": "more.example.com"})
    wanted = configuration()
    wanted["metadata"]["labels"] = {"ours": "1"}
    async with connected(registry) as connection:
        await write_registration(connection, wanted, lambda old: old)
    written = registry.objects[PATH]
    assert bundles(written) == {b"old"}
    assert written["metadata"]["labels"] == {"theirs": "1", "ours": "1"}
    assert written["metadata"]["annotations"] == {"theirs": "1"}
    assert "finalizers" not in written["metadata"]
    for webhook in written["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    assert written["webhooks"] == wanted["webhooks"]


async def test_a_secret_is_made_once_and_replaced_later() -> None:
    registry = Registry()
    async with connected(registry) as connection:
        assert await read_secret(connection, "ns", "tls") is None
        found = None
        for content in (b"one", b"two"):
            data = {"tls.crt": content, "tls.key": b"key"}
            found = await write_secret(connection, "ns", "tls", data, found)
            assert found == await read_secret(connection, "ns", "tls")
            assert data_of(found) == data
    written = registry.objects[f"{SECRETS}/tls"]
    assert written["type"] == "kubernetes.io/tls"
    assert (written["metadata"]["namespace"], written["kind"]) == ("ns", "Secret")
    assert registry.asked.count("POST") == 1


async def test_what_others_keep_in_a_secret_stays() -> None:
    registry = Registry()
    theirs = {"name": "tls", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e/f"]}
    registry.put(f"{SECRETS}/tls", {"type": "Opaque", "metadata": theirs, "data": {"x": "eQ=="}})
    async with connected(registry) as connection:
        found = await read_secret(connection, "ns", "tls")
        await write_secret(connection, "ns", "tls", {"tls.crt": b"new"}, found)
        written = await read_secret(connection, "ns", "tls")
    assert written is not None
    assert data_of(written) == {"x": b"y", "tls.crt": b"new"}
    assert theirs.items() <= written["metadata"].items()
    # The API server lets nobody change it.
    assert written["type"] == "Opaque"


@pytest.mark.parametrize("before", [None, {}], ids=["made", "replaced"])
async def test_a_secret_is_never_written_over_what_was_not_seen(before: Any) -> None:
    registry = Registry()
    path = f"{SECRETS}/tls"
    if before is not None:
        registry.put(path, {"metadata": {"name": "tls"}, "data": before})
    async with connected(registry) as connection:
        found = await read_secret(connection, "ns", "tls")
        registry.put(path, {"metadata": {"name": "tls"}, "data": {"tls.crt": "eQ=="}})
        with pytest.raises(ClusterError, match="Secret ns/tls: somebody else has written it"):
            await write_secret(connection, "ns", "tls", {"tls.crt": b"ours"}, found)
    assert registry.objects[path]["data"] == {"tls.crt": "eQ=="}


@pytest.mark.parametrize("status", [403, 500])
async def test_a_secret_that_cannot_be_read_or_written_is_an_error(status: int) -> None:
    registry = Registry()
    registry.fails = {"GET": status, "PUT": status, "POST": status}
    async with connected(registry) as connection:
        with pytest.raises(ClusterError):
            await read_secret(connection, "ns", "tls")
        for found in (None, {"metadata": {"resourceVersion": "1"}}):
            with pytest.raises(ClusterError):
                await write_secret(connection, "ns", "tls", {"tls.crt": b"x"}, found)
    assert registry.asked == ["GET", "POST", "PUT"]
