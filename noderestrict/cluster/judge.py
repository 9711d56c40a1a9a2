"""Judge requests against the live cluster.

The rules read stores that have heard from the API server recently; stale ones count as empty. A
request that they allow is allowed. Before a request is denied, every lookup behind the denial is
repeated against the API server, so a lagging store never denies and a disconnected store never
allows. If a lookup fails, the answer is 500, so that the kubelet retries.
"""

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Hashable,
    Mapping,
    Sequence,
    Set,
)
from dataclasses import replace
from functools import partial
from typing import Any

from noderestrict import admission
from noderestrict.agents.agents import Held
from noderestrict.agents.identity import User, pod_uid, user_of
from noderestrict.api.resources import ObjectKey, Resource
from noderestrict.cluster.access import Impersonated
from noderestrict.cluster.api_servers import Address
from noderestrict.cluster.audiences import REMEDY, APIAudiences
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.freshness import MAX_STALENESS
from noderestrict.cluster.grant_authorizer import GrantAuthorizer
from noderestrict.cluster.informers import Informers
from noderestrict.cluster.live import UNKNOWN_NODES, Budget, BudgetExhaustedError, LiveLookups
from noderestrict.cluster.reflector import Pace, Sink
from noderestrict.policy.decision import Allowed, Decision, Denied, Question, retriable
from noderestrict.policy.features import AUDIENCE_RESTRICTION, POD_CERTIFICATE_REQUEST
from noderestrict.policy.listers import Listers
from noderestrict.policy.records import Record
from noderestrict.policy.rules.serviceaccounts import AUDIENCE_RULE
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import Metrics

_ROUNDS = 6
_CREDENTIAL = "credential"
# Per request: a pod can name thousands of claims, but must not use up its node's whole budget.
_MOST_CONFIRMED = 100
#: Minor versions whose API servers can stream a list, but read all its pages except the first from
#: etcd. Newer ones take every page from their cache, which costs them half as much as a stream.
_STREAMING = range(32, 34)


def needed_stores(features: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the resources that the enabled rules look up."""
    plurals = ["nodes", "pods"]
    if features[POD_CERTIFICATE_REQUEST]:
        plurals.append("serviceaccounts")
    if features[AUDIENCE_RESTRICTION]:
        plurals += ["persistentvolumeclaims", "persistentvolumes", "csidrivers"]
    return tuple(plurals)


def streams(minor: int) -> bool:
    """Return whether lists are best read as streams, from API servers of Kubernetes 1.``minor``."""
    return minor in _STREAMING


class ClusterListers(Listers):
    """Lookups in live answers first, then in stores.

    A stale store counts as empty. A request must not be allowed because an object seems to be
    missing from it, so such lookups are recorded.

    Attributes:
        used: every object that was looked up.
        unknown: objects looked up in stale stores, without a live answer.
    """

    def __init__(self, informers: Informers, live: Mapping[ObjectKey, Record | None]) -> None:
        self._stores = informers.stores
        self._freshness = informers.freshness
        self._live = live
        self.used: set[ObjectKey] = set()
        self.unknown: set[ObjectKey] = set()

    def get(self, key: ObjectKey) -> Any:
        """Return a record from a live answer or a store."""
        self.used.add(key)
        if key in self._live:
            return self._live[key]
        store = self._stores.get(key.resource)
        if store is None:
            return None
        # Asked each time: the rules may have waited for their turn meanwhile.
        if self._freshness.any_stale() and self._freshness.stale(key.resource):
            self.unknown.add(key)
            return None
        return store.get(key.namespace, key.name)


class ClusterJudge:
    """Judges requests, and keeps the stores that this needs.

    Args:
        connection: to the API server.
        settings: of the rules; pending audiences are learned.
        metrics: to update.
        pace: of the reflectors.
        sinks: further resources to follow, with their sinks.
        max_staleness: seconds since a store last heard from the API server. Anything that an older
            store allows is confirmed.
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
        self._authorizer = GrantAuthorizer(connection, budget, self.count_live)
        self._audiences = (
            APIAudiences(connection, self._learned) if settings.audiences_pending else None
        )
        self._unsure = settings
        self.informers = Informers(
            connection,
            needed_stores(settings.features),
            metrics,
            streaming=streaming,
            pace=pace,
            sinks=sinks,
            max_staleness=max_staleness,
        )
        credentials = connection.credentials
        metrics.credential(credentials.has_problem, credentials.expiry)

    def count_live(self, resource: str, result: str) -> None:
        """Count one live lookup."""
        self._metrics.live_lookups.labels(resource, result).inc()

    def _current(self) -> Settings:
        """Return the settings; audiences that were learned too long ago count as unknown."""
        if self._audiences is None or self._audiences.age() <= self.informers.freshness.limit:
            return self._settings
        return self._unsure

    def _learned(self, audiences: tuple[str, ...]) -> None:
        self._settings = replace(self._settings, api_audiences=audiences, audiences_pending=False)

    def checks(self) -> Mapping[str, bool]:
        """Return the readiness checks, by name: stores, our credential, API audiences."""
        checks = self.informers.checks()
        checks[_CREDENTIAL] = self._connection.credentials.works()
        if self._audiences is not None:
            checks["api audiences"] = not self._settings.audiences_pending
        return checks

    def details(self) -> Mapping[str, str]:
        """Return details of the checks, by name."""
        details = self.informers.details()
        if detail := self._connection.credentials.detail():
            details[_CREDENTIAL] = detail
        if self._settings.audiences_pending:
            details["api audiences"] = f"not known yet; if this persists, {REMEDY}"
        return details

    def jobs(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Return the jobs that keep stores and audiences, by name; each runs until cancelled."""
        jobs = self.informers.jobs()
        if self._audiences is not None:
            jobs["api audiences"] = self._audiences.run
        return jobs

    async def run(self) -> None:
        """Keep the stores until cancelled."""
        async with asyncio.TaskGroup() as group:
            for job in self.jobs().values():
                group.create_task(job())

    def allowed(self, request: admission.Request) -> Allowed | None:
        """Return Allowed if stores that are not stale allow the request, else None."""
        listers = ClusterListers(self.informers, {})
        decision = admission.evaluate(request, self._current(), listers)
        return decision if isinstance(decision, Allowed) and not listers.unknown else None

    async def look_up(
        self, keys: Collection[ObjectKey], share: Hashable, deadline: float
    ) -> dict[ObjectKey, Record | None]:
        """Read objects from the API server.

        Args:
            keys: of the objects.
            share: of the lookup budget to spend.
            deadline: of time.monotonic(), seconds.

        Raises:
            BudgetExhaustedError: the share is used up, or there are too many objects.
            ClusterError: the API server did not answer, or not in time.
        """
        if len(keys) > _MOST_CONFIRMED:
            raise BudgetExhaustedError("it takes too many live lookups")
        ordered = sorted(keys)
        answers = await asyncio.gather(
            *(self._live.get(key, share, _left(deadline)) for key in ordered)
        )
        return dict(zip(ordered, answers, strict=True))

    def share(self, node: str, peer: str) -> tuple[str, str]:
        """Return the share of the lookup budget to spend for a node and a client address."""
        known = self.informers.stores["nodes"].get("", node) is not None
        return (peer, node) if known else UNKNOWN_NODES

    async def judge(
        self,
        request: admission.Request,
        deadline: float,
        skipped: Set[str] = frozenset(),
        peer: str = "",
        run: admission.Run = admission.inline,
    ) -> Allowed | Denied:
        """Return the decision.

        A denial depends only on live answers of the API server. An allowed request may also depend
        on stores that are not stale.
        """
        live: dict[ObjectKey, Record | None] = {}
        refused: set[Question] = set()
        share: Hashable = (
            self.share(request.node or "", peer)
            if request.agent is None
            else agent_share(request.agent, user_of(request.user), peer)
        )
        audiences = self._audiences
        for _ in range(_ROUNDS):
            settings = self._current()
            listers = ClusterListers(self.informers, live)
            decision = await run(partial(admission.evaluate, request, settings, listers, skipped))
            if isinstance(decision, Allowed) and not listers.unknown:
                return decision
            denied = _objection(decision)
            unconfirmed = listers.unknown if denied is None else listers.used - live.keys()
            try:
                if audiences is not None and denied is not None and denied.rule == AUDIENCE_RULE:
                    await audiences.confirm(_left(deadline))
                    audiences = None
                    if settings is not self._current():
                        continue
                if isinstance(decision, Question):
                    if decision not in refused and await self._authorizer.allows(
                        request, decision, share, _left(deadline)
                    ):
                        return Allowed(decision.otherwise.rule)
                    refused.add(decision)
                if denied is not None and not unconfirmed:
                    return denied
                live |= await self.look_up(unconfirmed, share, deadline)
            except (ClusterError, BudgetExhaustedError) as error:
                return _unknown(request, denied, str(error))
        return _unknown(request, denied, "the objects keep changing")


def agent_share(agent: Held, user: User, peer: str) -> Hashable:
    """Return the share of the lookup budget to spend for one pod of an agent."""
    return peer, agent.name, pod_uid(user)


def _objection(decision: Decision) -> Denied | None:
    if isinstance(decision, Question):
        return decision.otherwise
    return decision if isinstance(decision, Denied) else None


def _left(deadline: float) -> float:
    return deadline - time.monotonic()


def _unknown(request: admission.Request, denied: Denied | None, problem: str) -> Denied:
    where = ObjectKey(admission.resource_path(request), request.namespace, request.name)
    message = f"{where}: cannot be judged now; try again"
    return retriable(message, problem, denied.rule if denied else "")


@contextlib.asynccontextmanager
async def connected(
    kubeconfig: str | None,
    context: str | None,
    api_servers: Sequence[Address] = (),
    impersonated: Impersonated | None = None,
) -> AsyncIterator[Connection]:
    """Yield a connection to the API server, and close it at the end.

    Raises:
        ConnectionFailedError: the configuration is unusable.
    """
    connection = await Connection.open(kubeconfig, context, api_servers, impersonated=impersonated)
    try:
        yield connection
    finally:
        await connection.close()
