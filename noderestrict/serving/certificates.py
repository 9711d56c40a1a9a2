"""The serving certificate: read, checked, reloaded when it changes.

Contents are compared, not file times: a mounted Secret is swapped by a symbolic link, which file
watchers miss. New handshakes use the newest good pair; open connections are not affected.
"""

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from noderestrict.pki.check import KeyPair, KeyPairError, check_pair
from noderestrict.pki.files import read_regular
from noderestrict.policy.hostile import brief, is_failure
from noderestrict.serving.certificate_sources import LONGEST_FILE, Pem, Source
from noderestrict.serving.tls_context import TlsOptions, context_of, trust
from noderestrict.telemetry.logs import LOGGER
from noderestrict.telemetry.metrics import Metrics

_WARN_BEFORE = dt.timedelta(days=7)
_WARN_AGAIN = dt.timedelta(days=1)
_RETRY_SECONDS = 0.5
_T = TypeVar("_T")


class _Followed(Generic[_T]):
    """Something that is read again and again, and its last good content.

    Attributes:
        name: how logs call it.
        good: the last good content; None before the first.
        problem: why the current content is not used; None if it is.
    """

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.good: _T | None = None
        self.problem: str | None = None
        self._metrics = metrics

    def look(self, read: Callable[[_T | None], _T | None]) -> None:
        """Read the content, and keep it if it is good.

        Args:
            read: returns the content, given the last one if that is still all right; None if
                nothing is known yet; raises what it refuses.
        """
        try:
            found = read(self.good if self.problem is None else None)
        except KeyPairError as error:
            self._refuse(str(error))
        except OSError as error:
            self._refuse(f"{error.filename or 'it'}: {error.strerror or error}")
        except BaseException as error:
            if not is_failure(error):
                raise
            # Whatever went wrong, keep the last good one.
            self._refuse(f"it cannot be used: {brief(error)}")
        else:
            if found is not None:
                self._accept(found)

    def _accept(self, found: _T) -> None:
        self.good = found
        if self.problem is not None:
            LOGGER.info("certificate accepted again", extra={"source": self.name})
        self.problem = None

    def _refuse(self, problem: str) -> None:
        # Once for each problem, not on every poll.
        if problem != self.problem:
            self._metrics.certificate_refused.inc()
            LOGGER.error(
                "certificate rejected",
                extra={
                    "source": self.name,
                    "problem": problem,
                    "serving": "the last good one" if self.good is not None else "nothing from it",
                },
            )
        self.problem = problem


_Pair = tuple[Pem, KeyPair]


@dataclass(frozen=True, slots=True)
class _Served:
    """What handshakes use."""

    source: Source
    pem: Pem
    pair: KeyPair
    clients: bytes | None
    context: ssl.SSLContext


class Certificates:
    """A TLS context for each handshake, whose certificate follows its sources.

    Args:
        sources: of pairs. The newest good pair is served; of two that became valid at the same
            time, the one of the first source.
        options: of handshakes.
        metrics: show what is served.

    Attributes:
        pair: that is served; None before the first.
    """

    def __init__(self, sources: Sequence[Source], options: TlsOptions, metrics: Metrics) -> None:
        self._sources: list[tuple[Source, _Followed[_Pair]]] = [
            (source, _Followed(str(source), metrics)) for source in sources
        ]
        self._clients: _Followed[bytes] = _Followed(str(options.client_ca), metrics)
        self._served: _Followed[_Served] = _Followed("TLS", metrics)
        self._options = options
        self._metrics = metrics
        self._warned: dt.datetime | None = None
        self._changed = asyncio.Event()
        self.pair: KeyPair | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context of the newest good pair, for the next handshake.

        Each has sessions of its own: who was verified by a CA that is gone cannot resume one.

        Raises:
            KeyPairError: there is none yet.
        """
        if self._served.good is None:
            raise KeyPairError("there is no good pair yet")
        return self._served.good.context

    @property
    def problem(self) -> str | None:
        """Why a source or the CAs of clients are not used as they are now; None if all are."""
        followed: list[_Followed[Any]] = [one for _, one in self._sources]
        followed += [self._clients, self._served]
        found = [f"{one.name}: {one.problem}" for one in followed if one.problem is not None]
        return "; ".join(found) or None

    def detail(self) -> str:
        """Return which certificate is served, and what is wrong with the sources."""
        served = "nothing to serve yet"
        if self._served.good is not None:
            end = self._served.good.pair.not_after
            served = f"from {self._served.good.source}, valid until {end:%Y-%m-%dT%H:%M:%SZ}"
            served = "; ".join((served, *self._served.good.pair.warnings))
        return f"{served}; {self.problem}" if self.problem else served

    def trusted(self) -> bytes | None:
        """Return the CA bundle beside the pair of the first source that has one; None if none has.

        Raises:
            OSError: it cannot be read.
        """
        for source, _ in self._sources:
            if (bundle := source.ca()) is not None:
                return bundle
        return None

    def expired(self, now: dt.datetime) -> bool:
        """Return whether the served certificate has expired, or there is none."""
        return self.pair is None or now >= self.pair.not_after

    def reload(self, now: dt.datetime) -> bool:
        """Read the sources, and serve the newest pair in them if it is good and not yet served.

        Args:
            now: an aware time.

        Returns:
            Whether a new pair is served.
        """
        for source, followed in self._sources:
            followed.look(lambda good, source=source: self._read(source, good, now))  # type: ignore[misc]
        if self._options.client_ca is not None:
            self._clients.look(self._read_clients)
        before = self._served.good
        newest = self._newest(now)
        if newest is not None and (self._options.client_ca is None or self._clients.good):
            self._served.look(lambda good: self._build(*newest, good))
        self._metrics.certificate_problem.set(self.problem is not None)
        changed = self._served.good is not before
        if changed:
            self._tell()
        self._warn(now)
        return changed

    def look_soon(self) -> None:
        """Let ``follow`` read the sources at once."""
        self._changed.set()

    async def loaded_within(self, seconds: float) -> bool:
        """Load the first pair; return whether that worked within so many seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not await self._reload():
            left = end - loop.time()
            if left <= 0:
                return False
            await self._changed_within(min(_RETRY_SECONDS, left))
        return True

    async def follow(self, seconds: float) -> None:
        """Reload every so many seconds, and whenever a source changes, until cancelled."""
        while True:
            await self._changed_within(seconds)
            await self._reload()

    async def _reload(self) -> bool:
        # In a thread: a check takes milliseconds, and a disk may take longer.
        return await asyncio.to_thread(self.reload, dt.datetime.now(dt.UTC))

    async def _changed_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def _read(self, source: Source, good: _Pair | None, now: dt.datetime) -> _Pair | None:
        found = source.read()
        if found is None or (good is not None and good[0] == found):
            return good
        pair = check_pair(found.chain, found.key, now=now, dns_names=self._options.dns_names)
        # OpenSSL has an opinion of its own.
        context_of(pair, None, self._options)
        return found, pair

    def _read_clients(self, good: bytes | None) -> bytes:
        assert self._options.client_ca is not None  # noqa: S101 (the caller knows)
        found = read_regular(self._options.client_ca, LONGEST_FILE)
        if found != good:
            trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), found)
        return found

    def _newest(self, now: dt.datetime) -> tuple[Source, _Pair] | None:
        """Return the newest good pair; an expired one only if there is no other."""
        found = [
            (source, followed.good)
            for source, followed in self._sources
            if followed.good is not None
        ]
        return max(found, key=lambda one: _age(one[1][1], now), default=None)

    def _build(self, source: Source, found: _Pair, good: _Served | None) -> _Served:
        pem, pair = found
        clients = self._clients.good
        if good is not None and (good.pem, good.clients) == (pem, clients):
            return good
        context = context_of(pair, clients, self._options)
        return _Served(source, pem, pair, clients, context)

    def _tell(self) -> None:
        """Show the new pair in metrics and log."""
        served = self._served.good
        assert served is not None  # noqa: S101 (the caller knows)
        self.pair = served.pair
        self._metrics.certificate_loaded.inc()
        self._metrics.certificate_expiry.set(served.pair.chain_not_after.timestamp())
        self._metrics.certificate_warnings.set(len(served.pair.warnings))
        for source, _ in self._sources:
            self._metrics.certificate_source.labels(source.kind).set(source is served.source)
        LOGGER.info(
            "serving certificate",
            extra={
                "source": str(served.source),
                "names": list(served.pair.names),
                "not_after": served.pair.not_after.isoformat(),
                "serial": served.pair.serial,
            },
        )
        for warning in served.pair.warnings:
            LOGGER.warning(
                "odd certificate chain", extra={"source": str(served.source), "warning": warning}
            )

    def _warn(self, now: dt.datetime) -> None:
        if self.pair is None or self.pair.chain_not_after - now >= _WARN_BEFORE:
            self._warned = None
        elif self._warned is None or now - self._warned >= _WARN_AGAIN:
            # Not on every poll.
            self._warned = now
            LOGGER.warning(
                "the served certificate expires soon",
                extra={"not_after": self.pair.chain_not_after.isoformat()},
            )


def _age(pair: KeyPair, now: dt.datetime) -> tuple[bool, dt.datetime, dt.datetime]:
    """Return what orders pairs from old to new."""
    return now < pair.not_after, pair.not_before, pair.not_after
