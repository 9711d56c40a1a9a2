"""Users as the API server authenticates them, with the groups that they get from it."""

from dataclasses import dataclass

from noderestrict.policy.identity import NODE_USER_PREFIX, NODES_GROUP

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
SERVICE_ACCOUNTS = "system:serviceaccounts"
#: What the user names of service accounts begin with.
ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class User:
    """Who asks.

    Attributes:
        name: of the user.
        groups: of the user; RBAC adds none.
    """

    name: str
    groups: frozenset[str] = frozenset()


#: Who presents no credential, where the API server lets them in.
ANONYMOUS = User("system:anonymous", frozenset((UNAUTHENTICATED,)))


def service_account(namespace: str, name: str) -> User:
    """Return a service account with the groups of its tokens."""
    groups = (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED)
    return User(account_user(namespace, name), frozenset(groups))


def node(name: str) -> User:
    """Return the user that a kubelet is."""
    return User(f"{NODE_USER_PREFIX}{name}", frozenset((NODES_GROUP, AUTHENTICATED)))


def account_user(namespace: str, name: str) -> str:
    """Return the user name of a service account."""
    return f"{ACCOUNT_PREFIX}{namespace}:{name}"


def account_of(user: str) -> tuple[str, str] | None:
    """Return namespace and name of the service account that a user name means, None if none."""
    namespace, colon, name = user.removeprefix(ACCOUNT_PREFIX).partition(":")
    if not user.startswith(ACCOUNT_PREFIX) or not (colon and namespace and name) or ":" in name:
        return None
    return namespace, name
