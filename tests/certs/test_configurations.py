"""Certificates are written into a cluster, and nobody else's change is lost."""

import base64
from typing import Any

import jsonpatch
import pytest

from noderestrict.certs.configurations import (
    bundle_patch,
    change_bundles,
    read_bundles,
    write_registration,
)
from noderestrict.certs.secret import read_secret
from noderestrict.cluster.connection import ClusterError
from noderestrict.render.registration import webhook_configuration
from tests.cluster.scripted import Scripted, connected, raw, reply

SERVICE = {"service": {"name": "a", "namespace": "b"}}


def configuration(bundle: bytes | None = None) -> dict[str, Any]:
    config = dict(SERVICE, **({"caBundle": base64.b64encode(bundle).decode()} if bundle else {}))
    value = webhook_configuration(config)
    value["metadata"]["resourceVersion"] = "7"
    return value


def bundles(value: Any) -> set[bytes]:
    return {base64.b64decode(one["clientConfig"]["caBundle"]) for one in value["webhooks"]}


def test_a_bundle_is_added_where_there_is_none() -> None:
    value = configuration()
    patched = jsonpatch.apply_patch(value, bundle_patch(value, lambda _old: b"new"))
    assert bundles(patched) == {b"new"}


def test_a_bundle_is_replaced_only_if_it_is_still_what_was_read() -> None:
    value = configuration(b"old")
    patch = bundle_patch(value, lambda old: old + b"+new")
    assert bundles(jsonpatch.apply_patch(value, patch)) == {b"old+new"}
    for other in (configuration(b"changed"), {**value, "metadata": {"resourceVersion": "8"}}):
        with pytest.raises(jsonpatch.JsonPatchTestFailed):
            jsonpatch.apply_patch(other, patch)


def test_webhooks_in_another_order_are_not_confused() -> None:
    value = configuration(b"old")
    patch = bundle_patch(value, lambda _old: b"new")
    value["webhooks"].reverse()
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(value, patch)


def test_nothing_to_change_is_no_patch() -> None:
    assert bundle_patch(configuration(b"same"), lambda old: old) == []


_META = {"name": "x", "resourceVersion": "7"}


@pytest.mark.parametrize(
    "answer",
    [
        5,
        None,
        [],
        "x",
        {"data": 5},
        {"data": {"tls.crt": 5}},
        {"data": {"tls.crt": "!!"}},
        {"data": {"tls.crt": "\xe9"}},
        {"data": {"tls.crt": "YQ"}},
    ],
)
async def test_a_secret_of_another_shape_is_one_error_that_names_it(answer: Any) -> None:
    async with connected(reply(answer)) as connection:
        with pytest.raises(ClusterError, match="GET /api/v1/namespaces/ns/secrets/s: "):
            await read_secret(connection, "ns", "s")


@pytest.mark.parametrize(
    "answer",
    [
        5,
        None,
        [],
        {"metadata": 5},
        {"metadata": {"name": "x"}},
        {"metadata": {**_META, "labels": 5}},
        {"metadata": _META, "webhooks": 5},
        {"metadata": _META, "webhooks": [5]},
        {"metadata": _META, "webhooks": [{"name": 5, "clientConfig": {}}]},
        {"metadata": _META, "webhooks": [{"name": "n"}]},
        {"metadata": _META, "webhooks": [{"name": "n", "clientConfig": {"caBundle": "!!"}}]},
    ],
)
async def test_a_registration_of_another_shape_is_one_error_that_names_it(answer: Any) -> None:
    value = configuration()
    async with connected(Scripted(*[reply(answer)] * 3)) as connection:
        for act in (
            read_bundles(connection, "x"),
            change_bundles(connection, "x", lambda old: old),
            write_registration(connection, value, lambda old: old),
        ):
            with pytest.raises(ClusterError, match="GET /apis/admissionregistration"):
                await act


async def test_json_of_any_depth_is_one_error() -> None:
    deep = b'{"data":' * 9_995 + b"{}" + b"}" * 9_995
    async with connected(raw(deep)) as connection:
        with pytest.raises(ClusterError):
            await read_secret(connection, "ns", "s")
