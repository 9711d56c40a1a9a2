"""A pair in a Secret, watched through the API: a new one is there within a second.

A kubelet refreshes a mounted Secret only after a minute or more.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from noderestrict.api.metav1 import ObjectMeta
from noderestrict.api.resources import Resource, qualified
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.reflector import Pace, Reflector
from noderestrict.pki.check import KeyPairError
from noderestrict.serving.certificate_sources import CA, CERTIFICATE, KEY, Pem
from noderestrict.telemetry.metrics import Metrics

#: After a failed request: an expired certificate must not wait longer for its replacement.
_LONGEST_DELAY = 5.0


class _Secret(msgspec.Struct):
    metadata: ObjectMeta | None = None
    data: dict[str, bytes] | None = None


_SECRETS = Resource("secrets", "Secret", "v1", _Secret)


class TlsSecret:
    """A source of a pair: the Secret of type kubernetes.io/tls that a reflector follows.

    Args:
        connection: to the API server; its user needs to get, list and watch this Secret.
        namespace: of the Secret.
        name: of the Secret.
        metrics: show the age of what is known, and count failures, as for stores.
        streaming: try a streaming list.
        pace: of the reflector.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        name: str,
        metrics: Metrics,
        *,
        streaming: bool = True,
        pace: Pace | None = None,
    ) -> None:
        self._name = qualified(namespace, name)
        self._metrics = metrics
        self._changed: Callable[[], None] = lambda: None
        self._data: dict[str, bytes] | None = None
        self._listed: dict[str, bytes] | None = None
        self._reflector = Reflector(
            connection,
            _SECRETS,
            (self,),
            streaming=streaming,
            pace=pace or Pace(sleep=_sleep_briefly),
            failed=self._failed,
            lost=metrics.store_undecodable.labels(_SECRETS.plural).inc,
            only=(namespace, name),
        )
        metrics.store_age.labels(_SECRETS.plural).set_function(self._age)

    def __str__(self) -> str:
        return f"Secret {self._name}"

    @property
    def kind(self) -> str:
        """The name of the source in metrics."""
        return "secret"

    def read(self) -> Pem | None:
        """Return the pair as the API server last sent it; None if it has not answered yet.

        Raises:
            KeyPairError: the Secret is missing, or lacks a part of the pair.
        """
        data = self._data
        if data is None:
            if self._reflector.has_synced:
                raise KeyPairError("it does not exist, or cannot be decoded")
            if self._reflector.problem:
                raise KeyPairError(self._reflector.problem)
            return None
        for part in (CERTIFICATE, KEY):
            if part not in data:
                raise KeyPairError(f"it has no {part}")
        return Pem(data[CERTIFICATE], data[KEY])

    def ca(self) -> bytes | None:
        """Return what the Secret has as ``ca.crt``; None if it has none."""
        return (self._data or {}).get(CA)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Follow the Secret until cancelled.

        Args:
            changed: called when ``read`` may return something else.
        """
        self._changed = changed
        await self._reflector.run()

    def _age(self) -> float:
        age = self._reflector.age()
        return float("inf") if age is None else age

    def _failed(self, verb: str) -> None:
        self._metrics.store_errors.labels(_SECRETS.plural, verb).inc()
        self._changed()

    # What the reflector tells its sinks.

    def begin(self) -> None:
        """Start a list."""
        self._listed = None

    def add(self, value: Any) -> None:
        """Take the Secret from a list."""
        self._listed = value.data or {}

    def discard(self, _value: Any) -> None:
        """Drop the Secret, which was deleted before its list ended."""
        self._listed = None

    def commit(self) -> None:
        """Let the list take effect."""
        self._data, self._listed = self._listed, None
        self._changed()

    def upsert(self, value: Any) -> None:
        """Take the changed Secret."""
        self._data = value.data or {}
        self._changed()

    def delete(self, _value: Any) -> None:
        """Note that the Secret is gone, or cannot be decoded."""
        self._data = None
        self._changed()


async def _sleep_briefly(seconds: float) -> None:
    await asyncio.sleep(min(seconds, _LONGEST_DELAY))
