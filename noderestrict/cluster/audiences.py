"""Learn the API server's audiences from our own token, and keep them current."""

import asyncio
import base64
import time
from collections.abc import Callable, Sequence

import msgspec

from noderestrict.api import corev1
from noderestrict.api.scanner import ScanError
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.live import Coalescer
from noderestrict.cluster.objects import DECODE_ERRORS, ObjectDecoder, Unreadable
from noderestrict.policy.records import pod_record
from noderestrict.telemetry.logs import LOGGER

_KNOWN_SECONDS = 60.0
_UNKNOWN_SECONDS = 2.0
#: A denial depends on audiences that are no older than this.
_FRESH_SECONDS = 1.0
#: What to do if the audiences cannot be learned.
REMEDY = "set --api-audiences as on the API server"
_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 (a path)


class APIAudiences:
    """Learns the audiences repeatedly, because an API server may restart with others.

    If they cannot be learned again, the last ones are kept.

    Args:
        connection: to the API server.
        changed: called with the audiences when they change.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        connection: Connection,
        changed: Callable[[tuple[str, ...]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._changed = changed
        self._clock = clock
        self._calls: Coalescer[None] = Coalescer()
        self._learned: float | None = None
        self._audiences: tuple[str, ...] | None = None
        self._problem = ""

    def age(self) -> float:
        """Return the seconds since they were learned; infinite if they never were."""
        return float("inf") if self._learned is None else self._clock() - self._learned

    async def run(self) -> None:
        """Keep the audiences current until cancelled."""
        while True:
            try:
                await self._learn()
            except ClusterError as error:
                problem = str(error)[:500]
                if problem != self._problem:
                    LOGGER.warning(
                        "API audiences cannot be learned, %s", REMEDY, extra={"error": problem}
                    )
                self._problem = problem
            await asyncio.sleep(_UNKNOWN_SECONDS if self._audiences is None else _KNOWN_SECONDS)

    async def confirm(self, seconds: float) -> None:
        """Learn the audiences again, unless that was just done.

        Raises:
            ClusterError: the audiences could not be learned, or not in time.
        """
        if self.age() < _FRESH_SECONDS:
            return
        try:
            await self._calls.ask("audiences", self._learn, seconds)
        except TimeoutError:
            raise ClusterError("the API audiences could not be learned in time") from None

    async def _learn(self) -> None:
        asked = self._clock()
        audiences = await learn_audiences(self._connection)
        self._learned = asked
        self._problem = ""
        if audiences != self._audiences:
            LOGGER.info("API audiences", extra={"audiences": list(audiences)})
            self._audiences = audiences
            self._changed(audiences)


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    audiences: list[str] | None = None
    error: str | None = None


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _BoundPod(msgspec.Struct):
    name: str
    uid: str


class _Bound(msgspec.Struct):
    namespace: str = ""
    pod: _BoundPod | None = None


class _Claims(msgspec.Struct):
    aud: str | list[str] | None = None
    bound: _Bound | None = msgspec.field(default=None, name="kubernetes.io")


async def learn_audiences(connection: Connection) -> tuple[str, ...]:
    """Return the API server's audiences, from a TokenReview of our own token.

    The answer contains those of the API server's audiences for which the token is valid. They are
    all of them if the token names none, as one from a Secret, or if it comes from a pod's volume
    that names no audience, as the default volume. Any other token may be valid for only some, and
    nothing in it shows that.

    The source is pkg/serviceaccount/jwt.go of Kubernetes.

    Raises:
        ClusterError: our credentials do not show them, or the API server did not answer.
    """
    token = await connection.token()
    if token is None:
        raise ClusterError("the server authenticates without a token, and only a token shows them")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    answer = await connection.post(_TOKEN_REVIEWS, body, seconds=5)
    try:
        status = msgspec.json.decode(answer, type=_TokenReview).status
    except DECODE_ERRORS as error:
        raise ClusterError(f"TokenReview: {error}") from None
    audiences = tuple(status.audiences or ())
    if not status.authenticated or not audiences:
        raise ClusterError(f"TokenReview of our own token: {status.error or 'no audiences'}")
    claims = _claims(token)
    own = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
    if own and not (set(own) == set(audiences) and await _asked_for_none(connection, claims, own)):
        raise ClusterError(
            f"our token was requested for audiences {own!r}, which may be only some of the API "
            f"server's"
        )
    return audiences


async def _asked_for_none(connection: Connection, claims: _Claims, own: Sequence[str]) -> bool:
    """Return whether a token comes from a volume of its pod that names no audience.

    Raises:
        ClusterError: the pod could not be read.
    """
    if claims.bound is None or claims.bound.pod is None:
        return False
    bound = claims.bound.pod
    path = f"/api/v1/namespaces/{claims.bound.namespace}/pods/{bound.name}"
    try:
        read = await ObjectDecoder(corev1.Pod).decode(await connection.get(path, seconds=5))
    except ScanError as error:
        raise ClusterError(f"{path}: {error}") from None
    if isinstance(read, Unreadable):
        raise ClusterError(f"{path}: {read.problem}")
    pod = pod_record(read)
    # A volume that names an audience gets a token for that audience only.
    named = len(own) == 1 and own[0] in pod.audiences
    return pod.uid == bound.uid and "" in pod.audiences and not named


def _claims(token: str) -> _Claims:
    """Return the claims of a token; none if it is not a JWT.

    Raises:
        ClusterError: the token is a JWT whose claims cannot be read.
    """
    try:
        payload = token.split(".")[1]
        said = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return _Claims()
    try:
        return msgspec.convert(said, _Claims)
    except msgspec.ValidationError as error:
        raise ClusterError(f"the claims of our own token: {error}") from None
