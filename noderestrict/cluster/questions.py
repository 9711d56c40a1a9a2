"""What only the cluster knows: its authorizer's opinion, its audiences, its version."""

import base64
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec

from noderestrict import admission
from noderestrict.api import corev1
from noderestrict.api.admissionv1 import UserInfo
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.live import Budget, Coalescer
from noderestrict.policy.decision import Question
from noderestrict.policy.records import pod_record

_VERB = "request-serviceaccounts-token-audience"
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 (a path)
_REMEMBERED_SECONDS = 5.0
_REMEMBERED = 10_000

# CVE-2021-25735: before these patch releases an update of a Node could pass webhooks unseen.
_FIXED_PATCH = {18: 18, 19: 10, 20: 6}


class _ReviewStatus(msgspec.Struct):
    allowed: bool = False
    evaluationError: str | None = None  # noqa: N815 (the API's name)


class _Review(msgspec.Struct):
    status: _ReviewStatus


class Authorizer:
    """Asks the cluster's authorizer with the node's own identity.

    A yes is remembered for seconds; a no never is, so that a new grant counts at once.

    Args:
        connection: to the API server.
        budget: of each node at each address.
        counted: called with a resource name and a result, as for look-ups.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        connection: Connection,
        budget: Budget,
        counted: Callable[[str, str], None] = lambda _resource, _result: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._budget = budget
        self._counted = counted
        self._clock = clock
        self._calls: Coalescer[bool] = Coalescer()
        self._yes: OrderedDict[Hashable, float] = OrderedDict()

    async def allows(
        self, request: admission.Request, question: Question, share: Hashable, seconds: float
    ) -> bool:
        """Return whether the requesting user may use any audience of the question.

        Raises:
            BudgetExhaustedError: the share of the budget is used up.
            ClusterError: the API server could not be asked, or not in time.
        """
        for audience in question.audiences:
            spec = _spec(request.user, question, audience)
            key = msgspec.json.encode(spec, order="deterministic")
            if self._yes.get(key, 0) > self._clock():
                return True
            self._budget.spend(share)
            try:
                allowed = await self._calls.ask(key, lambda spec=spec: self._ask(spec), seconds)  # type: ignore[misc]
            except TimeoutError:
                raise ClusterError("the authorizer did not answer in time") from None
            if allowed:
                self._yes[key] = self._clock() + _REMEMBERED_SECONDS
                self._yes.move_to_end(key)
                if len(self._yes) > _REMEMBERED:
                    self._yes.popitem(last=False)
                return True
        return False

    async def _ask(self, spec: dict[str, Any]) -> bool:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": spec,
        }
        try:
            answer = await self._connection.post(_REVIEWS, body, seconds=5)
            status = msgspec.json.decode(answer, type=_Review).status
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._counted("subjectaccessreviews", "error")
            raise ClusterError(f"SubjectAccessReview: {error}") from None
        except ClusterError:
            self._counted("subjectaccessreviews", "error")
            raise
        self._counted("subjectaccessreviews", "allowed" if status.allowed else "not_allowed")
        if not status.allowed and status.evaluationError:
            # An authorizer that failed has not said no.
            raise ClusterError(f"SubjectAccessReview: {status.evaluationError[:300]}")
        return status.allowed


def _spec(user: UserInfo, question: Question, audience: str) -> dict[str, Any]:
    return {
        "user": user.username or "",
        "uid": user.uid or "",
        "groups": list(user.groups or ()),
        "extra": {key: values or [] for key, values in (user.extra or {}).items()},
        "resourceAttributes": {
            "verb": _VERB,
            "group": "",
            "version": "",
            "resource": audience,
            "name": question.service_account,
            "namespace": question.namespace,
        },
    }


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
    """Return the API server's audiences, as a TokenReview of our own token tells them.

    The answer holds the API server's audiences that the token is good for. These are all if the
    token names none, as one from a Secret, or if a pod's volume asked for a token without naming
    an audience, as the default one does. Any other token may be for some of them only, and nothing
    in it tells: some must not be taken for all.

    The source is pkg/serviceaccount/jwt.go of Kubernetes.

    Raises:
        ClusterError: our credentials cannot tell, or the API server could not be asked.
    """
    token = await connection.token()
    if token is None:
        raise ClusterError("we authenticate without a token, and only a token's review tells them")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    answer = await connection.post(_TOKEN_REVIEWS, body, seconds=5)
    try:
        status = msgspec.json.decode(answer, type=_TokenReview).status
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ClusterError(f"TokenReview: {error}") from None
    audiences = tuple(status.audiences or ())
    if not status.authenticated or not audiences:
        raise ClusterError(f"TokenReview of our own token: {status.error or 'no audiences'}")
    claims = _claims(token)
    own = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
    if own and not (set(own) == set(audiences) and await _asked_for_none(connection, claims, own)):
        raise ClusterError(
            f"our token was asked for with audiences {own!r}, which may be some of the API "
            f"server's only"
        )
    return audiences


async def _asked_for_none(connection: Connection, claims: _Claims, own: Sequence[str]) -> bool:
    """Tell whether a token comes from a volume of its pod that asks for no audience.

    Raises:
        ClusterError: the pod could not be read.
    """
    if claims.bound is None or claims.bound.pod is None:
        return False
    bound = claims.bound.pod
    path = f"/api/v1/namespaces/{claims.bound.namespace}/pods/{bound.name}"
    body = await connection.get(path, seconds=5)
    try:
        pod = pod_record(msgspec.json.decode(body, type=corev1.Pod))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterError(f"{path}: {error}") from None
    # A volume that asks for an audience gets a token for that one alone.
    named = len(own) == 1 and own[0] in pod.audiences
    return pod.uid == bound.uid and "" in pod.audiences and not named


def _claims(token: str) -> _Claims:
    """Return what a token says of itself; nothing for one that is no JWT.

    Raises:
        ClusterError: it is a JWT whose claims cannot be read.
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


class _Version(msgspec.Struct):
    gitVersion: str  # noqa: N815 (the API's name)


async def server_version(connection: Connection) -> tuple[int, int]:
    """Return minor version and patch level of a Kubernetes 1 API server.

    Raises:
        ClusterError: it could not be read.
    """
    body = await connection.get("/version", seconds=5)
    try:
        text = msgspec.json.decode(body, type=_Version).gitVersion
        major, minor, patch = text.removeprefix("v").split("-")[0].split("+")[0].split(".")[:3]
        if major != "1":
            raise ClusterError(f"/version: {text!r} is no Kubernetes 1")
        return int(minor), int(patch)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ClusterError(f"/version: {error}") from None


def is_open_to_cve_2021_25735(minor: int, patch: int) -> bool:
    """Tell whether updates of Nodes can pass this API server's webhooks unseen."""
    return minor < min(_FIXED_PATCH) or patch < _FIXED_PATCH.get(minor, 0)
