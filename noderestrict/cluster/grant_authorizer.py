"""Ask the cluster's authorizer what rules leave to it: further audiences and signers."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import msgspec

from noderestrict import admission
from noderestrict.cluster.connection import ClusterError, Connection
from noderestrict.cluster.live import Budget, Coalescer
from noderestrict.cluster.objects import DECODE_ERRORS
from noderestrict.policy.decision import Question

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_REMEMBERED_SECONDS = 5.0
_REMEMBERED = 10_000
# An API server fills in some names and ids of the credential.
_LONGEST_EXTRA = 64 * 1024
_extra = msgspec.json.Decoder(dict[str, list[str] | None] | None)


class _ReviewStatus(msgspec.Struct):
    allowed: bool = False
    evaluationError: str | None = None  # noqa: N815 (the API's name)


class _Review(msgspec.Struct):
    status: _ReviewStatus


class GrantAuthorizer:
    """Asks the cluster's authorizer, with the node's own identity.

    A yes is cached for a few seconds. A no is never cached, so a new grant takes effect at once.

    Args:
        connection: to the API server.
        budget: per node and client address.
        counted: called with a resource name and a result, as for lookups.
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
        """Return whether the requesting user may use any resource of the question.

        Raises:
            BudgetExhaustedError: the share of the budget is used up.
            ClusterError: the API server did not answer, or not in time.
        """
        for resource in question.resources:
            spec = _spec(request, question, resource)
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
        except DECODE_ERRORS as error:
            self._counted("subjectaccessreviews", "error")
            raise ClusterError(f"SubjectAccessReview: {error}") from None
        except ClusterError:
            self._counted("subjectaccessreviews", "error")
            raise
        self._counted("subjectaccessreviews", "allowed" if status.allowed else "not_allowed")
        if not status.allowed and status.evaluationError:
            # A failed authorizer has not answered no.
            raise ClusterError(f"SubjectAccessReview: {status.evaluationError[:300]}")
        return status.allowed


def _spec(request: admission.Request, question: Question, resource: str) -> dict[str, Any]:
    """Return what is asked.

    Raises:
        ClusterError: ``userInfo.extra`` cannot be passed on.
    """
    user = request.user
    if len(user.extra) > _LONGEST_EXTRA:
        raise ClusterError(
            f"userInfo.extra has {len(user.extra)} bytes; no more than {_LONGEST_EXTRA} are passed "
            f"on to the authorizer"
        )
    try:
        extra = _extra.decode(user.extra) or {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterError(f"userInfo.extra: {error}") from None
    return {
        "user": user.username or "",
        "uid": user.uid or "",
        "groups": list(user.groups or ()),
        "extra": {key: values or [] for key, values in extra.items()},
        "resourceAttributes": {
            "verb": question.verb,
            "group": question.group,
            "version": request.version,
            "resource": resource,
            "name": question.name,
            "namespace": question.namespace,
        },
    }
