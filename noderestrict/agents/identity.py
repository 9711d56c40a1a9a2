"""Which node an agent runs on, or why that is not known."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from noderestrict.agents.agents import Held
from noderestrict.agents.file import Source
from noderestrict.api import admissionv1
from noderestrict.policy.listers import Listers

_PREFIX = "authentication.kubernetes.io/"
# An API server fills in some names and ids of the credential.
_LONGEST_EXTRA = 64 * 1024
_LONGEST_UID = 64


class _Extra(msgspec.Struct):
    """What the API server says of a service account's token."""

    node: list[str] | None = msgspec.field(default=None, name=f"{_PREFIX}node-name")
    pod: list[str] | None = msgspec.field(default=None, name=f"{_PREFIX}pod-name")
    pod_uid: list[str] | None = msgspec.field(default=None, name=f"{_PREFIX}pod-uid")
    credential: list[str] | None = msgspec.field(default=None, name=f"{_PREFIX}credential-id")


_decoder = msgspec.json.Decoder(_Extra | None)

# What a credential looks like that tells no node, and what to do.
IMPERSONATED = "as no API server writes: somebody impersonates the account"
WITHOUT_POD = (
    "there is neither a uid nor a pod: somebody impersonates the account; a node's work needs the "
    "token that is mounted into the agent's pod"
)
OF_A_NODE = (
    "the token is bound to a Node, not to a pod: whoever may create serviceaccounts/token chooses "
    "that Node; use the token that is mounted into the agent's pod"
)
REQUESTED = (
    "the token is bound to no pod: it was requested by itself, as by 'kubectl create token', or is "
    "bound to a Secret; use the token that is mounted into the agent's pod"
)
NAMES_NO_POD = (
    "the token names no pod: it looks like one from a Secret, which is good on any node; use the "
    "token that is mounted into the agent's pod, and delete the Secret. A controller that shares "
    "the account needs one of its own"
)
WITHOUT_NODE = "the token is bound to a pod, but does not name its node: that needs Kubernetes 1.30"


class User(msgspec.Struct, frozen=True, gc=False):
    """Who makes a request.

    Attributes:
        name: of the user.
        uid: of the user, "" for none.
        extra: as JSON.
    """

    name: str
    uid: str
    extra: msgspec.Raw


def user_of(info: admissionv1.UserInfo) -> User:
    """Return the requester of an AdmissionReview."""
    return User(info.username or "", info.uid or "", info.extra)


def pod_uid(user: User) -> str:
    """Return the uid of the pod that a user's token is bound to, "" if that is not known."""
    if len(user.extra) > _LONGEST_EXTRA:
        return ""
    try:
        return _single((_decoder.decode(user.extra) or _Extra()).pod_uid)[:_LONGEST_UID]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


class Known(msgspec.Struct, frozen=True, gc=False):
    """The node is known.

    Attributes:
        name: of the node, never "".
        told: whether the request itself names it. What was looked up is never told to who asks.
    """

    name: str
    told: bool = True

    @property
    def shown(self) -> str:
        """The name in messages."""
        return self.name if self.told else "{node}"

    def __str__(self) -> str:
        """Return the node as a message calls it."""
        return f"node {self.name!r}" if self.told else "its node"


@dataclass(frozen=True, slots=True)
class Unknown:
    """The node is not known.

    Attributes:
        looks_like: what the credential seems to be, and what to do.
        detail: for the operator: what was looked up.
    """

    looks_like: str
    detail: str = ""


_NO_SOURCE = Unknown("")


def node_of(agent: Held, user: User, listers: Listers) -> Known | Unknown:
    """Return the node that an agent runs on.

    Args:
        agent: that the user is.
        user: who makes the request.
        listers: look up the pod, if the policy says so.

    Raises:
        LookupUnavailableError: the pod could not be looked up.
    """
    if agent.account is None:
        node = user.name[len(agent.prefix) :]
        if not node:
            return Unknown(without_name(agent.prefix))
        return Known(node)
    if len(user.extra) > _LONGEST_EXTRA:
        return Unknown(f"userInfo.extra has {len(user.extra)} bytes; no API server writes that")
    try:
        extra = _decoder.decode(user.extra) or _Extra()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Unknown(f"userInfo.extra: {error}")
    for values in (extra.node, extra.pod, extra.pod_uid):
        if values is not None and len(values) > 1:
            what = "nodes" if values is extra.node else "pods"
            return Unknown(f"userInfo.extra names {len(values)} {what}, {IMPERSONATED}")
    unknown = _NO_SOURCE
    for source in agent.sources:
        found = _SOURCES[source](agent, user, extra, listers)
        if isinstance(found, Known):
            return found
        unknown = found
    return unknown


def without_name(prefix: str) -> str:
    """Return what is wrong with a user name that is nothing but a prefix."""
    return f"the user name ends with {prefix!r}, and names no node"


def _single(values: list[str] | None) -> str:
    """Return the only value, "" if there is none or if there are several."""
    return values[0] if values is not None and len(values) == 1 else ""


def _of_token(_agent: Held, user: User, extra: _Extra, _listers: Listers) -> Known | Unknown:
    node = _single(extra.node)
    # A token can also be bound to a Node, by whoever may create tokens for the account.
    if node and _single(extra.pod) and _single(extra.pod_uid):
        return Known(node)
    return _seems(user, extra) or Unknown(
        f"{WITHOUT_NODE}; let the policy look up the pod (node: [token, pod])"
    )


def _of_pod(agent: Held, user: User, extra: _Extra, listers: Listers) -> Known | Unknown:
    name, uid = _single(extra.pod), _single(extra.pod_uid)
    if not name or not uid or agent.account is None:
        return _seems(user, extra) or Unknown("the token does not say which pod it is bound to")
    pod = listers.pod(agent.account[0], name)
    who = f"pod {agent.account[0]}/{name}"
    if pod is None:
        return Unknown(f"{who}, which the token is bound to, is not found")
    if pod.uid != uid:
        return Unknown(
            f"{who}, which the token is bound to, has been replaced by another one of that name",
            f"the pod has uid {pod.uid!r}",
        )
    if not pod.node_name:
        return Unknown(f"{who}, which the token is bound to, is on no node yet")
    return Known(pod.node_name, told=False)


_SOURCES: dict[Source, Callable[[Held, User, _Extra, Listers], Known | Unknown]] = {
    Source.TOKEN: _of_token,
    Source.POD: _of_pod,
}


def _seems(user: User, extra: _Extra) -> Unknown | None:
    """Return what a credential that is bound to no pod looks like; None if it is bound to one."""
    if _single(extra.pod) and _single(extra.pod_uid):
        return None
    if not user.uid:
        return Unknown(WITHOUT_POD)
    if extra.node:
        return Unknown(OF_A_NODE)
    return Unknown(REQUESTED if extra.credential else NAMES_NO_POD)
