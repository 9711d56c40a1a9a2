"""Informers: stores and other sinks that follow resources of the cluster."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence, Set
from functools import partial
from typing import Any

from noderestrict.api.resources import RESOURCES, Resource
from noderestrict.cluster.connection import Connection
from noderestrict.cluster.freshness import MAX_STALENESS, Freshness, Probe
from noderestrict.cluster.reflector import Pace, Reflector, Sink
from noderestrict.cluster.store import Store
from noderestrict.telemetry.metrics import Metrics

_ASKED = "api server"


class Informers:
    """Follows resources with one reflector each, which fills a store, other sinks, or both.

    Args:
        connection: to the API server.
        plurals: of the resources that get a store.
        metrics: to update.
        streaming: try streaming lists.
        pace: of the reflectors.
        sinks: further resources to follow, with their sinks.
        max_staleness: seconds since a store last heard from the API server. Anything that an older
            store allows must be confirmed.
    """

    def __init__(
        self,
        connection: Connection,
        plurals: Iterable[str],
        metrics: Metrics,
        *,
        streaming: bool = True,
        pace: Pace | None = None,
        sinks: Sequence[tuple[Resource, Sink]] = (),
        max_staleness: float = MAX_STALENESS,
    ) -> None:
        self._metrics = metrics
        self.stores = {plural: Store(plural) for plural in plurals}
        followed: dict[str, list[Sink]] = {plural: [store] for plural, store in self.stores.items()}
        for resource, sink in sinks:
            followed.setdefault(resource.plural, []).append(sink)
        self._reflectors = {
            plural: Reflector(
                connection,
                RESOURCES[plural],
                targets,
                streaming=streaming,
                pace=pace,
                failed=self._count_failure(plural),
                lost=metrics.store_undecodable.labels(plural).inc,
            )
            for plural, targets in followed.items()
        }
        self._clock = (pace or Pace()).clock
        self._failed: dict[str, float] = {}
        self._outage = float("-inf")
        self.freshness = Freshness(
            {plural: reflector.age for plural, reflector in self._reflectors.items()},
            max_staleness,
            self._clock,
        )
        self._again = asyncio.Event()
        self._probe = Probe(
            connection,
            lambda: (
                not connection.credentials.works() or any(map(self._troubled, self._reflectors))
            ),
            self._note_outage,
            self._follow_again,
        )
        for plural, store in self.stores.items():
            metrics.store_objects.labels(plural).set_function(store.__len__)
        for plural, reflector in self._reflectors.items():
            metrics.store_age.labels(plural).set_function(_age(reflector))
            metrics.store_undecodable_objects.labels(plural).set_function(_unreadable(reflector))

    def has_synced(self) -> bool:
        """Return whether every resource has been listed once."""
        return all(reflector.has_synced for reflector in self._reflectors.values())

    def unreadable(self, plural: str) -> Set[tuple[str, str]]:
        """Return the namespace and name of each undecodable object, which no sink has."""
        reflector = self._reflectors.get(plural)
        return frozenset() if reflector is None else reflector.unreadable()

    def _count_failure(self, plural: str) -> Callable[[str], None]:
        def failed(verb: str) -> None:
            self._failed[plural] = self._clock()
            self._metrics.store_errors.labels(plural, verb).inc()

        return failed

    def _troubled(self, plural: str) -> bool:
        """Return whether following a resource has failed and not recovered."""
        age = self._reflectors[plural].age()
        if age is None or self.freshness.stale(plural):
            return True
        # Nothing heard since the last failure, or since nobody answered?
        failed = max(self._failed.get(plural, float("-inf")), self._outage)
        return self._clock() - age <= failed

    def _note_outage(self) -> None:
        self._outage = self._clock()

    def _follow_again(self) -> None:
        """End the back-off and the hanging requests of reflectors in trouble."""
        again, self._again = self._again, asyncio.Event()
        again.set()

    def checks(self) -> dict[str, bool]:
        """Return the readiness checks, by name.

        Each store must have been filled once. While one is stale, the API server must answer.
        """
        checks = {
            f"store {plural}": reflector.has_synced
            for plural, reflector in self._reflectors.items()
        }
        checks[_ASKED] = self._probe.answers or not self.freshness.any_stale()
        return checks

    def details(self) -> dict[str, str]:
        """Return details of the checks, by name."""
        details = {}
        for plural, reflector in self._reflectors.items():
            age = reflector.age()
            text = "never filled" if age is None else f"{age:.0f} s old"
            if self.freshness.stale(plural):
                text += ", stale: everything it allows is confirmed by a lookup"
            details[f"store {plural}"] = text
        if not self._probe.answers:
            details[_ASKED] = "lookups fail"
        return details

    def jobs(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Return the jobs that keep the stores, by name; each runs until cancelled."""
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            f"store {plural}": partial(self._follow, plural) for plural in self._reflectors
        }
        jobs["probe"] = self._probe.run
        return jobs

    async def _follow(self, plural: str) -> None:
        """Follow a resource; restart if it is in trouble when the API server answers again."""
        while True:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._reflectors[plural].run())
                await self._again.wait()
                while not self._troubled(plural):
                    await self._again.wait()
                following.cancel()
            # It may have waited for an answer all the while, and so know of no failure.
            self._reflectors[plural].forget()


def _age(reflector: Reflector) -> Callable[[], float]:
    def age() -> float:
        seconds = reflector.age()
        return float("inf") if seconds is None else seconds

    return age


def _unreadable(reflector: Reflector) -> Callable[[], float]:
    return lambda: len(reflector.unreadable())
