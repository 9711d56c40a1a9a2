"""Installed webhook configurations: whom they call, and the CA by which they verify it."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

import jsonpatch
import msgspec

from noderestrict.api.resources import WEBHOOK_CONFIGURATIONS
from noderestrict.certs.typed import at_version, patch_typed, read_typed
from noderestrict.cluster.connection import MANAGED, ClusterError, Connection


class _Service(msgspec.Struct):
    name: str
    namespace: str


class _Server(msgspec.Struct):
    url: str | None = None
    service: _Service | None = None


class _ClientConfig(_Server):
    caBundle: bytes | None = None  # noqa: N815 (the API's name)


class _Webhook(msgspec.Struct):
    name: str
    clientConfig: _ClientConfig  # noqa: N815 (the API's name)


class _Metadata(msgspec.Struct):
    resourceVersion: str  # noqa: N815 (the API's name)
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Configuration(msgspec.Struct):
    """The fields of a webhook configuration that are looked at."""

    metadata: _Metadata
    webhooks: list[_Webhook] | None = None


class _PlannedMetadata(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _PlannedWebhook(msgspec.Struct):
    name: str
    # Whatever stands for the CA is replaced.
    clientConfig: _Server  # noqa: N815 (the API's name)


class _Planned(msgspec.Struct):
    metadata: _PlannedMetadata
    webhooks: list[_PlannedWebhook]


def checked(value: Any) -> dict[str, Any]:
    """Return a webhook configuration that is about to be written, as values of JSON.

    Args:
        value: what YAML holds.

    Raises:
        ValueError: a field that is looked at is missing, or has another type.
    """
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    msgspec.convert(found, _Planned)
    return found


async def read_bundles(connection: Connection, configuration: str) -> dict[str, bytes]:
    """Return the CA bundle of each webhook of a configuration.

    Raises:
        ClusterError: the configuration could not be read.
    """
    value = await read_typed(
        connection, WEBHOOK_CONFIGURATIONS.path("", configuration), Configuration
    )
    return {webhook["name"]: _bundle(webhook) for webhook in value.get("webhooks") or ()}


async def read_hosts(connection: Connection, configuration: str) -> list[str]:
    """Return the host names that the webhooks of a configuration are called by, each once.

    Raises:
        ClusterError: the configuration could not be read.
    """
    value = await read_typed(
        connection, WEBHOOK_CONFIGURATIONS.path("", configuration), Configuration
    )
    return hosts_of(value)


def hosts_of(registration: Mapping[str, Any]) -> list[str]:
    """Return the host names that the webhooks of a registration are called by, each once.

    Args:
        registration: a webhook configuration.

    Raises:
        ClusterError: a URL has no host.
    """
    found = []
    for webhook in registration.get("webhooks") or ():
        client = webhook["clientConfig"]
        if service := client.get("service"):
            found.append(f"{service['name']}.{service['namespace']}.svc")
            continue
        try:
            host = urlsplit(client.get("url") or "").hostname
        except ValueError:
            host = None
        if not host:
            raise ClusterError(f"webhook {webhook['name']}: its URL has no host")
        if not (host.isascii() and host.isprintable()) or " " in host:
            raise ClusterError(f"webhook {webhook['name']}: its URL has the host {host!r}")
        found.append(host)
    return list(dict.fromkeys(found))


def bundle_patch(value: Any, change: Callable[[bytes], bytes]) -> list[dict[str, Any]]:
    """Return the JSON patch that changes every CA bundle of a webhook configuration.

    The patch tests the values that it replaces, so that no concurrent change is lost.

    Args:
        value: the current configuration.
        change: returns the new bundle for an old one.
    """
    operations: list[dict[str, Any]] = []
    for index, webhook in enumerate(value.get("webhooks") or ()):
        old = webhook["clientConfig"].get("caBundle")
        new = base64.b64encode(change(base64.b64decode(old or ""))).decode()
        if new == old:
            continue
        path = f"/webhooks/{index}/clientConfig/caBundle"
        operations.append(
            {"op": "test", "path": f"/webhooks/{index}/name", "value": webhook["name"]}
        )
        if old:
            operations.append({"op": "test", "path": path, "value": old})
        operations.append({"op": "replace" if old else "add", "path": path, "value": new})
    return at_version(value, operations)


async def change_bundles(
    connection: Connection, configuration: str, change: Callable[[bytes], bytes]
) -> bool:
    """Change every CA bundle of a webhook configuration; retries on conflicts.

    Returns:
        Whether anything changed.

    Raises:
        ClusterError: the change failed.
    """

    def changed(value: Any) -> list[dict[str, Any]]:
        operations = bundle_patch(value, change)
        # A patch that cannot be applied here must not reach the API server.
        jsonpatch.JsonPatch(operations).apply(value)
        return operations

    path = WEBHOOK_CONFIGURATIONS.path("", configuration)
    return bool(await patch_typed(connection, path, Configuration, changed))


async def write_registration(
    connection: Connection,
    value: Mapping[str, Any],
    bundle: Callable[[bytes], bytes],
    check: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None,
) -> None:
    """Create or replace a webhook configuration.

    Only labels, annotations and whatever ``bundle`` keeps survive. An apply would keep fields that
    it never set, such as a selector or a match condition that somebody added.

    Args:
        connection: to the cluster.
        value: the configuration, without a CA.
        bundle: returns the CA bundle of a webhook for the installed one.
        check: is given what is about to be written, with the CA; raises if it must not be.

    Raises:
        ClusterError: the configuration could not be written.
    """
    path = WEBHOOK_CONFIGURATIONS.path("", value["metadata"]["name"])
    try:
        installed = await read_typed(connection, path, Configuration)
    except ClusterError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        created = _registered(value, {}, bundle)
        if check is not None:
            await check(created)
        await connection.post(WEBHOOK_CONFIGURATIONS.list_path, created, query=MANAGED)
        return
    bundles = {one["name"]: _bundle(one) for one in installed.get("webhooks") or ()}
    written = _registered(value, bundles, bundle)
    metadata = installed["metadata"]
    for field in ("labels", "annotations"):
        both = {**(metadata.get(field) or {}), **(value["metadata"].get(field) or {})}
        written["metadata"][field] = both
    if check is not None:
        await check(written)
    written["metadata"]["resourceVersion"] = metadata["resourceVersion"]
    await connection.put(path, written)


def _registered(
    value: Mapping[str, Any], bundles: Mapping[str, bytes], bundle: Callable[[bytes], bytes]
) -> dict[str, Any]:
    webhooks = []
    for webhook in value["webhooks"]:
        ca = base64.b64encode(bundle(bundles.get(webhook["name"], b""))).decode()
        client = {**webhook["clientConfig"], "caBundle": ca}
        webhooks.append({**webhook, "clientConfig": client})
    return {**value, "metadata": dict(value["metadata"]), "webhooks": webhooks}


def _bundle(webhook: Mapping[str, Any]) -> bytes:
    return base64.b64decode(webhook["clientConfig"].get("caBundle") or "")
