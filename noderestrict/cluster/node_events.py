"""Events about nodes whose requests broke a rule, for ``kubectl describe node``.

What a node can cause is bounded: similar refusals are one Event with a count, and only so many are
written in a period, few of them for each node.
"""

import asyncio
import datetime as dt
import os
import platform
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from noderestrict.cluster.connection import MANAGED, ClusterError, Connection
from noderestrict.policy.text import printable
from noderestrict.telemetry.logs import LOGGER

#: What became of Events, as they are counted.
WRITTEN, FAILED, DROPPED = "written", "failed", "dropped"
OUTCOMES = (WRITTEN, FAILED, DROPPED)
#: Where the Events of objects without a namespace are.
NAMESPACE = "default"
CONTROLLER = "noderestrict"

_PATH = f"/api/v1/namespaces/{NAMESPACE}/events"
#: Bytes of a message, as events.k8s.io limits them.
_LONGEST = 1024
#: An Event's name is that of its node, a dot and 16 digits; 253 characters at most.
_LONGEST_NAME = 236
#: Kinds of refusal that are remembered.
_SERIES = 1_000
#: Seconds between rounds, writes of a round, and those of a node among them.
_PERIOD = 10.0
_WRITES, _OF_A_NODE = 10, 2
#: Seconds between writes of an Event, and after which it is forgotten: API servers keep one for an
#: hour.
_REPEATED = 60.0
_FORGOTTEN = 3000.0
_ANSWER_SECONDS = 5.0


@dataclass(slots=True)
class _Series:
    """Refusals that are one Event.

    Attributes:
        node: its name.
        reason: in a word, for programs.
        rule: that was broken.
        message: of the last refusal.
        first: when it happened first.
        last: when it happened last.
        count: how often.
        seen: ``last``, in seconds of the clock.
        name: of the Event, "" before it was written.
        written: when that was, in seconds of the clock.
        told: the count that the Event has.
        failed: when it was last not written, in seconds of the clock.
    """

    node: str
    reason: str
    rule: str
    message: str
    first: dt.datetime
    last: dt.datetime
    count: int
    seen: float
    name: str = ""
    written: float = float("-inf")
    told: int = 0
    failed: float = float("-inf")


class NodeEvents:
    """Keeps what was refused, and writes it to the cluster in its own time.

    Args:
        connection: to the API server.
        uid_of: returns the uid of a node, None for a node that is not known.
        count: is given one of ``OUTCOMES``.
        clock: seconds, monotonic.
        now: returns the time.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        connection: Connection,
        uid_of: Callable[[str], str | None],
        count: Callable[[str], None],
        *,
        clock: Callable[[], float] | None = None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._uid_of = uid_of
        self._count = count
        self._clock = clock or asyncio.get_running_loop().time
        self._now = now
        self._sleep = sleep
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._wanted = asyncio.Event()
        self._problem = ""
        self._swept = float("-inf")
        self._instance = os.environ.get("HOSTNAME") or platform.node()

    def add(self, node: str, reason: str, rule: str, message: str) -> None:
        """Take note of a refusal; never waits.

        Args:
            node: that made the request.
            reason: why there is an Event, in a word.
            rule: that was broken.
            message: as the client got it.
        """
        key, message = (node, reason, rule), message[:_LONGEST]
        found = self._series.get(key)
        now, moment = self._clock(), self._now()
        if found is not None and now - found.seen < _FORGOTTEN:
            found.message = message
            found.last, found.seen = moment, now
            found.count += 1
        elif found is None and (
            self._uid_of(node) is None or (len(self._series) >= _SERIES and not self._forget(now))
        ):
            # Who is not known has no object that an Event could be about.
            self._count(DROPPED)
            return
        else:
            self._series[key] = _Series(node, reason, rule, message, moment, moment, 1, now)
        self._wanted.set()

    def _forget(self, now: float) -> bool:
        """Drop series that are over, if that was not just done; return whether there is room."""
        if now - self._swept < _PERIOD:
            return False
        self._swept = now
        kept = {
            key: one
            for key, one in self._series.items()
            if one.told < one.count or now - one.seen < _REPEATED
        }
        self._series = kept
        return len(kept) < _SERIES

    async def run(self) -> None:
        """Write Events until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self.write()
            if any(one.told < one.count for one in self._series.values()):
                self._wanted.set()
            await self._sleep(_PERIOD)

    async def write(self) -> None:
        """Write what is due, as much as a round may."""
        for one in self._due():
            count, now = one.count, self._clock()
            try:
                await self._put(one)
            except ClusterError as error:
                self._count(FAILED)
                self._complain(str(error))
                # The others would fail, too; if only this one does, they come first next time.
                one.failed = now
                return
            one.told, one.written = count, now
            self._problem = ""
            self._count(WRITTEN)

    def _due(self) -> list[_Series]:
        now = self._clock()
        due = [
            one
            for one in self._series.values()
            if one.told < one.count and now - one.written >= _REPEATED
        ]
        chosen: list[_Series] = []
        taken: dict[str, int] = {}
        # New ones first, then those that have waited longest.
        for one in sorted(due, key=lambda one: max(one.written, one.failed)):
            if taken.get(one.node, 0) < _OF_A_NODE and len(chosen) < _WRITES:
                taken[one.node] = taken.get(one.node, 0) + 1
                chosen.append(one)
        return chosen

    async def _put(self, one: _Series) -> None:
        """Create or update an Event.

        Raises:
            ClusterError: the API server did not take it.
        """
        if one.name:
            changes = {
                "count": one.count, "lastTimestamp": _time(one.last), "message": _cut(one.message)
            }  # fmt: skip
            patch = [
                {"op": "replace", "path": f"/{name}", "value": value}
                for name, value in changes.items()
            ]
            try:
                await self._connection.json_patch(
                    f"{_PATH}/{one.name}", patch, seconds=_ANSWER_SECONDS
                )
            except ClusterError as error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
                # It has expired.
                one.name = ""
        if not one.name:
            name = f"{one.node[:_LONGEST_NAME].rstrip('.-')}.{uuid.uuid4().hex[:16]}"
            event = self._event(one, name)
            await self._connection.post(_PATH, event, query=MANAGED, seconds=_ANSWER_SECONDS)
            one.name = name

    def _event(self, one: _Series, name: str) -> Mapping[str, Any]:
        about = {"apiVersion": "v1", "kind": "Node", "name": one.node}
        if uid := self._uid_of(one.node):
            about["uid"] = uid
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "annotations": {"noderestrict.io/rule": one.rule},
            },
            "involvedObject": about,
            "type": "Warning",
            "reason": one.reason,
            "action": "Refuse",
            "message": _cut(one.message),
            "count": one.count,
            "firstTimestamp": _time(one.first),
            "lastTimestamp": _time(one.last),
            "source": {"component": CONTROLLER},
            "reportingComponent": CONTROLLER,
            "reportingInstance": self._instance[:128],
        }

    def _complain(self, problem: str) -> None:
        """Log a problem, once for as long as it stays the same."""
        if problem != self._problem:
            LOGGER.warning("an Event could not be written", extra={"error": problem[:500]})
        self._problem = problem


def _time(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(message: str) -> str:
    """Return a message on one line, and no longer than an Event's may be."""
    data = printable(message).encode()
    return data[:_LONGEST].decode(errors="ignore")
