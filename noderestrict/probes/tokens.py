"""Probes of the rules about service account tokens.

A TokenRequest cannot be a dry run. Each one here names a service account and a pod of another one:
the API server refuses that with 400 after admission, so that no token is ever made.
"""

from collections.abc import Iterator

from noderestrict.graph.rules import Access
from noderestrict.policy.rule import CREATE
from noderestrict.probes.observed import (
    MADE_UP,
    NO_UID,
    MissingError,
    Observed,
    account_of,
    named,
    projected,
    uid_of,
)
from noderestrict.probes.probe import passes, refused
from noderestrict.probes.request import API, Object, Request, user_of

_TOKENS = API(
    "", "v1", "serviceaccounts", "TokenRequest", "token", "authentication.k8s.io/v1", dry_run=False
)
#: An audience that no pod asks for.
_AUDIENCE = f"https://{MADE_UP}.example.com"
GRANT = "request-serviceaccounts-token-audience"


def _mismatched(seen: Observed, pods: Iterator[Object]) -> Iterator[tuple[str, Object]]:
    """Yield accounts of the node's pods with pods of another account in the same namespace."""
    accounts = {(named(pod)[0], account_of(pod)) for pod in seen.real_pods() if account_of(pod)}
    for pod in pods:
        namespace, _ = named(pod)
        for where, account in sorted(accounts):
            if where == namespace and account_of(pod) not in ("", account):
                yield account, pod


def _own(seen: Observed) -> tuple[str, Object, str]:
    """Return an account, a pod of another account, and an audience that the pod asks for."""
    for account, pod in _mismatched(seen, seen.real_pods()):
        for source in projected(pod, "serviceAccountToken"):
            return account, pod, source.get("audience") or ""
    raise MissingError(
        f"it takes two pods of different service accounts in one namespace on node {seen.node}, "
        f"one of them with a projected token"
    )


def _request(seen: Observed, account: str, pod: Object, audience: str, uid: str = "") -> Request:
    namespace, name = named(pod)
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid or uid_of(pod)}
    spec = {"audiences": [audience] if audience else [], "boundObjectRef": reference}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return Request(user_of(seen.node), _TOKENS, CREATE, namespace, account, body)


@refused("serviceaccounts-token/bound-pod")
def token_of_foreign_pod(seen: Observed) -> Request:
    """Request a token bound to a pod on another node, or of another uid if no such pod is known."""
    for account, pod in _mismatched(seen, iter(seen.foreign_pods)):
        return _request(seen, account, pod, "")
    account, pod, audience = _own(seen)
    return _request(seen, account, pod, audience, NO_UID)


def _grant(seen: Observed) -> Access:
    account, pod, _ = _own(seen)
    namespace, _ = named(pod)
    return Access(seen.node, GRANT, "", _AUDIENCE, namespace=namespace, name=account)


@refused("serviceaccounts-token/audience", granted=_grant)
def token_for_any_audience(seen: Observed) -> Request:
    """Request a token for an audience that its pod does not ask for."""
    account, pod, _ = _own(seen)
    return _request(seen, account, pod, _AUDIENCE)


@passes("serviceaccounts-token/bound-pod", "serviceaccounts-token/audience")
def token_of_own_pod(seen: Observed) -> Request:
    """Request a token bound to a pod on the node, for an audience that the pod asks for."""
    return _request(seen, *_own(seen))
