"""Informers: stores and other sinks that follow the resources of the cluster."""

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
    """Follows resources: a reflector for each, which fills a store, other sinks, or both.

    Args:
        connection: to the API server.
        plurals: of the resources that get a store.
        metrics: counted into.
        streaming: try streaming lists.
        pace: of the reflectors.
        sinks: further resources to follow, with their sinks.
        max_staleness: seconds since a store last heard from the API server, up to which what it
            allows need not be confirmed.
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
        self.freshness = Freshness(
            {plural: reflector.age for plural, reflector in self._reflectors.items()},
            max_staleness,
            self._clock,
        )
        self._again = asyncio.Event()
        self._probe = Probe(
            connection, lambda: any(map(self._troubled, self._reflectors)), self._follow_again
        )
        for plural, store in self.stores.items():
            metrics.store_objects.labels(plural).set_function(store.__len__)
        for plural, reflector in self._reflectors.items():
            metrics.store_age.labels(plural).set_function(_age(reflector))
            metrics.store_undecodable_objects.labels(plural).set_function(_unreadable(reflector))

    def has_synced(self) -> bool:
        """Tell whether every resource has been listed once."""
        return all(reflector.has_synced for reflector in self._reflectors.values())

    def unreadable(self, plural: str) -> Set[tuple[str, str]]:
        """Return namespace and name of each object that no sink has: it cannot be decoded."""
        reflector = self._reflectors.get(plural)
        return frozenset() if reflector is None else reflector.unreadable()

    def _count_failure(self, plural: str) -> Callable[[str], None]:
        def failed(verb: str) -> None:
            self._failed[plural] = self._clock()
            self._metrics.store_errors.labels(plural, verb).inc()

        return failed

    def _troubled(self, plural: str) -> bool:
        """Tell whether a resource is not followed as it should be."""
        age = self._reflectors[plural].age()
        if age is None or self.freshness.stale(plural):
            return True
        # Has it heard anything since it failed?
        return self._clock() - age <= self._failed.get(plural, float("-inf"))

    def _follow_again(self) -> None:
        """End the waiting of those that are in trouble, and the requests that hang."""
        again, self._again = self._again, asyncio.Event()
        again.set()

    def checks(self) -> dict[str, bool]:
        """Return what readiness depends on, by name.

        Each store has been filled once; while one is stale, the API server can be asked instead.
        """
        checks = {
            f"store {plural}": reflector.has_synced
            for plural, reflector in self._reflectors.items()
        }
        checks[_ASKED] = self._probe.answers or not self.freshness.any_stale()
        return checks

    def details(self) -> dict[str, str]:
        """Return what there is to say on the checks, by their names."""
        details = {}
        for plural, reflector in self._reflectors.items():
            age = reflector.age()
            text = "never filled" if age is None else f"{age:.0f} s old"
            if self.freshness.stale(plural):
                text += ", stale: what it allows is confirmed by a lookup"
            details[f"store {plural}"] = text
        if not self._probe.answers:
            details[_ASKED] = "lookups fail"
        return details

    def jobs(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Return, by name, what keeps the stores; each runs until cancelled."""
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            f"store {plural}": partial(self._follow, plural) for plural in self._reflectors
        }
        jobs["probe"] = self._probe.run
        return jobs

    async def _follow(self, plural: str) -> None:
        """Follow a resource; start anew if it is in trouble when the API server answers again."""
        while True:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._reflectors[plural].run())
                await self._again.wait()
                while not self._troubled(plural):
                    await self._again.wait()
                following.cancel()


def _age(reflector: Reflector) -> Callable[[], float]:
    def age() -> float:
        seconds = reflector.age()
        return float("inf") if seconds is None else seconds

    return age


def _unreadable(reflector: Reflector) -> Callable[[], float]:
    return lambda: len(reflector.unreadable())
