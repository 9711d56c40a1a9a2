"""The JSON patch that changes CA bundles."""

import base64
from typing import Any

import jsonpatch
import pytest

from noderestrict.cluster.publish import bundle_patch
from noderestrict.render.registration import webhook_configuration

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
