"""Our credential for the API server, renewed while we run.

Files are read again and again: Kubernetes swaps them by a symbolic link, which watchers of files
miss. What a plugin or a provider issues is renewed before it expires. An answer of 401 renews at
once. The last good credential stays in use until there is a new one.
"""

import asyncio
import base64
import contextlib
import datetime as dt
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from cryptography import x509

from noderestrict.cluster.access import Access, Cluster, User
from noderestrict.cluster.errors import ClusterError, ConnectionFailedError
from noderestrict.cluster.exec_plugin import run_plugin
from noderestrict.cluster.issued import Issued, expiry_of
from noderestrict.cluster.oidc import Exchange
from noderestrict.cluster.transport import present, verifying_context
from noderestrict.policy.hostile import brief, is_failure, refused_as
from noderestrict.telemetry.logs import LOGGER

#: Results of a renewal.
RENEWED, FAILED = "renewed", "failed"
#: How often to read files.
_POLL_SECONDS = 10.0
#: How long before it expires to renew what was issued; half of its time if that is shorter.
_LEAD_SECONDS = 300.0
#: The same may be issued again and again until it expires: do not ask more often than this.
_LEAST_SECONDS = 10.0
_LONGEST_DELAY = 60.0
#: An event loop cannot wait for ever.
_LONGEST_WAIT = 3600.0
_NEVER = float("inf")

Pair = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """What requests authenticate with.

    Attributes:
        authorization: header; "" for none.
        context: for TLS, with the client certificate and the CAs to trust; None without TLS.
        expires: when, in seconds since 1970; None if that is unknown.
    """

    authorization: str = ""
    context: ssl.SSLContext | None = None
    expires: float | None = None


class Credentials:
    """The credential in use, and whether it works.

    Args:
        current: the credential to use until it is renewed.
        access: what it is read from; None if it cannot be renewed.
        clock: seconds since 1970.
        sleep: waits for seconds.

    Attributes:
        current: the credential in use.
        problem: why it could not be renewed when that was last tried; "" if it could.
        counted: called with the result of each renewal.
    """

    def __init__(
        self,
        current: Credential | None = None,
        access: Access | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.current = current or Credential()
        self.problem = ""
        self.counted: Callable[[str], None] = lambda _result: None
        self._access = access
        self._clock = clock
        self._sleep = sleep
        self._issue = None if access is None else _issuer(access, clock)
        self._issued = Issued()
        self._due = float("-inf") if self._issue else _NEVER
        self._pinned: tuple[bytes | None, Pair | None] | None = None
        self._token_was_read = False
        self._failures = 0
        # Renewals demanded since a request was last accepted, and when the next one may be.
        self._futile = 0
        self._not_before = float("-inf")
        self._demanded = asyncio.Event()
        self._tried = asyncio.Event()
        self._refused = False
        self._accepted = float("-inf")

    @classmethod
    async def read(cls, access: Access) -> "Credentials":
        """Return the credential that an access describes.

        Raises:
            ConnectionFailedError: it is unusable.
            ClusterError: a plugin or a provider failed.
        """
        credentials = cls(access=access)
        credentials.current = await credentials._read(access)
        return credentials

    def works(self) -> bool:
        """Return whether the API server accepts the credential, as far as that is known."""
        return not self._refused and not self._has_expired()

    def _has_expired(self) -> bool:
        """Return whether it has expired, and nothing was accepted since: clocks may differ."""
        expires = self.current.expires
        return expires is not None and self._accepted <= expires <= self._clock()

    def has_problem(self) -> bool:
        """Return whether it does not work, or cannot be renewed."""
        return bool(self.problem) or not self.works()

    def expiry(self) -> float:
        """Return when it expires, in seconds since 1970; infinite if that is unknown."""
        expires = self.current.expires
        return float("inf") if expires is None else expires

    def detail(self) -> str:
        """Return what is known about the credential besides whether it works."""
        said = ["the API server refuses it"] if self._refused else []
        if (expires := self.current.expires) is not None:
            verb = "expired" if expires <= self._clock() else "expires"
            said.append(f"{verb} at {_moment(expires)}")
        if self.problem:
            # Anybody may ask for this: the error is in the log.
            said.append("the last renewal failed, see the log")
        return "; ".join(said)

    def answered(self, status: int, used: Credential) -> None:
        """Note the status of an answer to a request, and the credential that it was sent with."""
        if status != HTTPStatus.UNAUTHORIZED:
            self._refused = False
            self._futile = 0
            self._accepted = self._clock()
        elif used is self.current and not self._refused:
            self._refused = True
            LOGGER.warning("the API server refuses our credential")

    async def replaced(self, used: Credential, seconds: float) -> bool:
        """Have a refused credential renewed, and return whether there is another one now.

        Args:
            used: the credential that was refused.
            seconds: how long to wait for a renewal that fails and is tried again.
        """
        if self._wait() is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.current is used:
                    if not self.problem and self._clock() < self._not_before:
                        # It was renewed a moment ago, to no avail.
                        return False
                    tried = self._tried
                    self._demanded.set()
                    await tried.wait()
                    if not self.problem:
                        break
        return self.current is not used

    def _wait(self) -> float | None:
        """Return the seconds until the next renewal; None if there is never one."""
        if self._access is None:
            return None
        wait = max(0.0, self._due - self._clock())
        if _follows_files(self._access):
            wait = min(wait, _POLL_SECONDS)
        elif self._issue is None:
            return None
        if not self.problem:
            return wait
        return min(
            _POLL_SECONDS if self._issue is None else _LONGEST_DELAY, 2.0**self._failures / 2
        )

    async def run(self) -> None:
        """Renew the credential whenever that is due, until cancelled; returns if it never is."""
        access = self._access
        while access is not None and (wait := self._wait()) is not None:
            if self.problem:
                # Whoever demands a renewal waits as well.
                await self._sleep(wait)
            else:
                await self._until_demanded(min(wait, _LONGEST_WAIT))
            demanded = self._demanded.is_set()
            self._demanded.clear()
            await self._renew(access, demanded=demanded)

    async def _until_demanded(self, seconds: float) -> None:
        """Wait for some time, or until a renewal is demanded."""
        loop = asyncio.get_running_loop()
        waits = [
            loop.create_task(self._demanded.wait()),
            asyncio.ensure_future(self._sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _renew(self, access: Access, *, demanded: bool) -> None:
        try:
            if demanded and self._issue is not None:
                self._due = float("-inf")
            fresh = await self._read(access)
        except BaseException as error:
            if not is_failure(error):
                raise
            self._fail(str(error) if isinstance(error, ClusterError) else brief(error))
        else:
            if fresh != self.current:
                self.current = fresh
                self._refused = False
                self.counted(RENEWED)
                LOGGER.info("credential renewed", extra={"expires": _moment(fresh.expires)})
            elif self.problem:
                LOGGER.info("the credential can be renewed again")
            self.problem = ""
            self._failures = 0
        if demanded:
            self._not_before = self._clock() + min(_LONGEST_DELAY, 2.0**self._futile)
            self._futile = min(self._futile + 1, 10)
        tried, self._tried = self._tried, asyncio.Event()
        tried.set()

    def _fail(self, problem: str) -> None:
        self._failures = min(self._failures + 1, 10)
        self.problem = " ".join(problem.split())[:500]
        self.counted(FAILED)
        LOGGER.warning(
            "the credential cannot be renewed",
            extra={"error": self.problem, "retry_seconds": self._wait()},
        )

    async def _read(self, access: Access) -> Credential:
        """Return the credential as it is now; what was issued is issued again if that is due.

        Raises:
            ClusterError: it cannot be had.
        """
        user, cluster = access.user, access.cluster
        if self._issue is not None and self._clock() >= self._due:
            issued = await self._issue()
            left = _NEVER if issued.expires is None else issued.expires - self._clock()
            if left <= 0:
                raise ClusterError(
                    f"{user.where}: the new credential expired at {_moment(issued.expires)}"
                )
            self._issued = issued
            self._due = self._clock() + _interval(left)
        token, pair, ca = await asyncio.to_thread(self._contents, user, cluster)
        token = _sendable(self._issued.token or token, user)
        pair = self._issued.pair or pair
        known = [self._issued.expires, expiry_of(token)]
        context = self.current.context
        if cluster.server.startswith("https:"):
            if context is None or self._pinned != (ca, pair):
                context = await asyncio.to_thread(_context, access, ca, pair)
                self._pinned = ca, pair
            if pair is not None:
                known.append(_not_after(pair[0], user))
        if token:
            authorization = f"Bearer {token}"
        else:
            basic = base64.b64encode(user.basic.encode()).decode()
            authorization = f"Basic {basic}" if basic else ""
        expires = min((one for one in known if one is not None), default=None)
        return Credential(authorization, context, expires)

    def _contents(self, user: User, cluster: Cluster) -> tuple[str, Pair | None, bytes | None]:
        """Return bearer token, client certificate and CAs as their files have them now."""
        token = user.token
        if user.token_file is not None:
            try:
                token = user.token_file.read().decode("utf-8", "replace")
                self._token_was_read = True
            except ConnectionFailedError:
                # As in client-go, the token in the kubeconfig stands in for a file that was never
                # there.
                if self._token_was_read or not token:
                    raise
        pair = None
        if user.certificate is not None and user.key is not None:
            pair = user.certificate.read(), user.key.read()
        return token, pair, None if cluster.ca is None else cluster.ca.read()


def _issuer(access: Access, clock: Callable[[], float]) -> Callable[[], Awaitable[Issued]] | None:
    """Return what issues the credential, if anything does: client-go's order of precedence."""
    user = access.user
    if user.token or user.token_file or user.basic:
        return None
    if user.provider is not None:
        return Exchange(user.provider, clock).issue
    if user.plugin is not None and user.certificate is None:
        return partial(run_plugin, user.plugin, access.cluster)
    return None


def _follows_files(access: Access) -> bool:
    user = access.user
    files = (access.cluster.ca, user.token_file, user.certificate, user.key)
    return any(one is not None and one.path is not None for one in files)


def _interval(left: float) -> float:
    """Return the seconds until something is renewed that is good for so many more."""
    wait = left - _LEAD_SECONDS if left > _LEAD_SECONDS else left / 2
    return max(wait, min(_LEAST_SECONDS, left))


def _context(access: Access, ca: bytes | None, pair: Pair | None) -> ssl.SSLContext:
    cluster, user = access.cluster, access.user
    with refused_as(ConnectionFailedError, str(cluster.ca or cluster.where)):
        context = verifying_context(ca, insecure=cluster.insecure)
    if pair is not None:
        with refused_as(ConnectionFailedError, str(user.certificate or user.where)):
            present(context, *pair)
    return context


def _not_after(certificate: bytes, user: User) -> float:
    with refused_as(ConnectionFailedError, str(user.certificate or user.where)):
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()


def _sendable(token: str, user: User) -> str:
    """Return a token without white space around it.

    Raises:
        ConnectionFailedError: no header may hold it; the message does not quote it.
    """
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        file = user.token_file.path if user.token_file is not None else None
        which = "" if file is None else f" in tokenFile {file}"
        raise ConnectionFailedError(
            f"{user.where}: the token{which} holds characters that no token may have"
        )
    return token


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    try:
        return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"
