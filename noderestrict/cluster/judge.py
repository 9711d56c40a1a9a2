"""Judge with what is known of the live cluster.

The rules run over the stores that have heard from the API server lately; the others count as empty.
What they allow is allowed. Before anything is refused, every look-up that the refusal depends on is
made again at the API server: a store that lags never refuses, and one that is cut off never allows.
What cannot be asked is answered 500, so that the kubelet tries again.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any

from noderestrict import admission
from noderestrict.api.resources import RESOURCES, ObjectKey, Resource
from noderestrict.cluster.audiences import REMEDY, APIAudiences
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.freshness import MAX_STALENESS, Freshness, Probe
from noderestrict.cluster.live import UNKNOWN_NODES, Budget, BudgetExhaustedError, LiveLookups
from noderestrict.cluster.questions import Authorizer
from noderestrict.cluster.reflector import Pace, Reflector, Sink
from noderestrict.cluster.store import Store
from noderestrict.graph.edges import Vertex
from noderestrict.policy.decision import Allowed, Denied, Question, retriable
from noderestrict.policy.features import AUDIENCE_RESTRICTION, POD_CERTIFICATE_REQUEST
from noderestrict.policy.listers import Listers
from noderestrict.policy.records import Record
from noderestrict.policy.rules.serviceaccounts import AUDIENCE_RULE
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import Metrics

_ROUNDS = 6
# Of one request: a pod can name thousands of claims, but not take its node's whole budget.
_MOST_CONFIRMED = 100
_ASKED = "api server"
#: The first minor version whose API servers give streaming lists by default.
STREAMING_SINCE = 32


def needed_stores(features: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the resources that the enabled rules look up."""
    plurals = ["nodes", "pods"]
    if features[POD_CERTIFICATE_REQUEST]:
        plurals.append("serviceaccounts")
    if features[AUDIENCE_RESTRICTION]:
        plurals += ["persistentvolumeclaims", "persistentvolumes", "csidrivers"]
    return tuple(plurals)


class ClusterListers(Listers):
    """Look-ups over stores and live answers, which go first; every one is noted in ``used``.

    A store that is stale counts as empty.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        live: Mapping[ObjectKey, Record | None],
        freshness: Freshness,
    ) -> None:
        self._stores = stores
        self._stale = freshness.stale if freshness.any_stale() else None
        self._live = live
        self.used: set[ObjectKey] = set()

    def get(self, key: ObjectKey) -> Any:
        """Return a record from a live answer or a store, and note the lookup."""
        self.used.add(key)
        if key in self._live:
            return self._live[key]
        store = self._stores.get(key.resource)
        if store is None or (self._stale is not None and self._stale(key.resource)):
            return None
        return store.get(key.namespace, key.name)


class ClusterJudge:
    """Judges requests, and keeps the stores that it needs for that.

    Args:
        connection: to the API server.
        settings: of the rules; audiences that are pending are learned.
        metrics: counted into.
        pace: of the reflectors.
        sinks: further resources to follow, with their sinks.
        max_staleness: seconds since a store last heard from the API server, up to which what it
            allows need not be confirmed.
    """

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        metrics: Metrics,
        *,
        streaming: bool = True,
        pace: Pace | None = None,
        sinks: Sequence[tuple[Resource, Sink]] = (),
        max_staleness: float = MAX_STALENESS,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._metrics = metrics
        budget = Budget()
        self._live = LiveLookups(connection, budget, self.count_live)
        self._authorizer = Authorizer(connection, budget, self.count_live)
        self._audiences = (
            APIAudiences(connection, self._learned) if settings.audiences_pending else None
        )
        self.stores = {plural: Store(plural) for plural in needed_stores(settings.features)}
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

    def unreadable(self, vertex: Vertex) -> bool:
        """Tell whether an object exists that cannot be decoded, so that no sink has it."""
        plural, namespace, name = vertex
        reflector = self._reflectors.get(plural)
        return reflector is not None and (namespace, name) in reflector.unreadable()

    def count_live(self, resource: str, result: str) -> None:
        """Count one question to the API server."""
        self._metrics.live_lookups.labels(resource, result).inc()

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

    def _learned(self, audiences: tuple[str, ...]) -> None:
        self._settings = replace(self._settings, api_audiences=audiences, audiences_pending=False)

    def checks(self) -> Mapping[str, bool]:
        """Return what readiness depends on, by name.

        These are: each store has been filled once; while one is stale, the API server can be asked
        instead; and the audiences are known.
        """
        checks = {
            f"store {plural}": reflector.has_synced
            for plural, reflector in self._reflectors.items()
        }
        checks[_ASKED] = self._probe.answers or not self.freshness.any_stale()
        if self._audiences is not None:
            checks["api audiences"] = not self._settings.audiences_pending
        return checks

    def details(self) -> Mapping[str, str]:
        """Return what there is to say on checks, by their names."""
        details = {}
        for plural, reflector in self._reflectors.items():
            age = reflector.age()
            text = "never filled" if age is None else f"{age:.0f} s old"
            if self.freshness.stale(plural):
                text += ", stale: what it allows is confirmed by a look-up"
            details[f"store {plural}"] = text
        if not self._probe.answers:
            details[_ASKED] = "look-ups fail"
        if self._settings.audiences_pending:
            details["api audiences"] = f"not known yet; {REMEDY}, if they stay so"
        return details

    def jobs(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Return, by name, what keeps the stores; each runs until cancelled."""
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            f"store {plural}": partial(self._follow, plural) for plural in self._reflectors
        }
        jobs["probe"] = self._probe.run
        if self._audiences is not None:
            jobs["api audiences"] = self._audiences.run
        return jobs

    async def run(self) -> None:
        """Keep the stores until cancelled."""
        async with asyncio.TaskGroup() as group:
            for job in self.jobs().values():
                group.create_task(job())

    async def _follow(self, plural: str) -> None:
        """Follow a resource; start anew if it is in trouble when the API server answers again."""
        while True:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._reflectors[plural].run())
                await self._again.wait()
                while not self._troubled(plural):
                    await self._again.wait()
                following.cancel()

    def allowed(self, request: admission.Request) -> Allowed | None:
        """Return that a request is allowed, if stores that are not stale say so."""
        listers = ClusterListers(self.stores, {}, self.freshness)
        decision = admission.judge(request, self._settings, listers)
        return decision if isinstance(decision, Allowed) else None

    def share(self, node: str, peer: str) -> tuple[str, str]:
        """Return whose budget of live look-ups is spent for a node, by a client at an address."""
        return (peer, node) if self.stores["nodes"].get("", node) is not None else UNKNOWN_NODES

    async def judge(
        self,
        request: admission.Request,
        deadline: float,
        skipped: Set[str] = frozenset(),
        peer: str = "",
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        """Return the decision.

        A refusal depends only on what the API server itself answered; that something is allowed, on
        that and on stores that are not stale.
        """
        live: dict[ObjectKey, Record | None] = {}
        refused: set[Question] = set()
        share = self.share(request.node or "", peer)
        audiences = self._audiences
        for _ in range(_ROUNDS):
            settings = self._settings
            listers = ClusterListers(self.stores, live, self.freshness)
            decision = await run(partial(admission.judge, request, settings, listers, skipped))
            if isinstance(decision, Allowed):
                return decision
            denied = decision.otherwise if isinstance(decision, Question) else decision
            try:
                if audiences is not None and denied.rule == AUDIENCE_RULE:
                    await audiences.confirm(_left(deadline))
                    audiences = None
                    if settings is not self._settings:
                        continue
                if isinstance(decision, Question):
                    if decision not in refused and await self._authorizer.allows(
                        request, decision, share, _left(deadline)
                    ):
                        return Allowed(decision.otherwise.rule)
                    refused.add(decision)
                unconfirmed = sorted(listers.used - live.keys())
                if not unconfirmed:
                    return denied
                if len(unconfirmed) > _MOST_CONFIRMED:
                    error = BudgetExhaustedError("it takes too many live look-ups")
                    return _unknown(request, denied, error)
                answers = await asyncio.gather(
                    *(self._live.get(key, share, _left(deadline)) for key in unconfirmed)
                )
            except (ClusterError, BudgetExhaustedError) as error:
                return _unknown(request, denied, error)
            live.update(zip(unconfirmed, answers, strict=True))
        return _unknown(request, denied, ClusterError("the objects keep changing"))


def _age(reflector: Reflector) -> Callable[[], float]:
    def age() -> float:
        seconds = reflector.age()
        return float("inf") if seconds is None else seconds

    return age


def _unreadable(reflector: Reflector) -> Callable[[], float]:
    return lambda: len(reflector.unreadable())


def _left(deadline: float) -> float:
    return deadline - time.monotonic()


def _unknown(request: admission.Request, decision: Denied | Question, error: Exception) -> Denied:
    denied = decision.otherwise if isinstance(decision, Question) else decision
    return retriable(
        f"{admission.resource_path(request)} {request.namespace}/{request.name}: cannot be judged "
        f"now; try again",
        str(error),
        denied.rule,
    )


@contextlib.asynccontextmanager
async def connected(kubeconfig: str | None, context: str | None) -> Any:
    """Open a connection, and close it at the end.

    Raises:
        ConnectionFailedError: there is no usable configuration.
    """
    connection = await Connection.open(kubeconfig, context)
    try:
        yield connection
    finally:
        await connection.close()
