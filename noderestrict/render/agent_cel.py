"""What CEL says about agents: who they are, their node, and what a request is about.

Expressions that belong to one request: conditions of webhooks and authorizers, and policies.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from noderestrict.agents.file import Agent, Source, User
from noderestrict.policy.cel import is_identifier
from noderestrict.rbac.subjects import account_user

ALL = "*"
_PREFIX = "authentication.kubernetes.io/"
#: Of a token, in the requester's extra.
NODE_NAME, POD_NAME, POD_UID, CREDENTIAL_ID = (
    f"{_PREFIX}{key}" for key in ("node-name", "pod-name", "pod-uid", "credential-id")
)
#: What has a special meaning in a pattern of RE2.
_SPECIAL = frozenset(r"\.+*?()|[]{}^$")


@dataclass(frozen=True, slots=True)
class Terms:
    """How CEL names the requester: in admission, and in authorization."""

    username: str
    groups: str
    extra: str


ADMISSION = Terms("request.userInfo.username", "request.userInfo.groups", "request.userInfo.extra")
AUTHORIZATION = Terms("request.user", "request.groups", "request.extra")


def every(*tests: str) -> str:
    """Return a test that all of several hold; those with alternatives need parentheses."""
    return " && ".join(test for test in tests if test)


def some(tests: Iterable[str]) -> str:
    """Return a test, in parentheses, that one of several holds."""
    found = list(tests)
    return f"({' || '.join(f'({test})' for test in found)})" if len(found) > 1 else f"({found[0]})"


def text(value: str) -> str:
    """Return a text as a literal."""
    # CEL knows no surrogates, which JSON writes for characters beyond the first 65,536.
    return json.dumps(value, ensure_ascii=False)


def texts(values: Iterable[str]) -> str:
    """Return texts as a literal list."""
    return f"[{', '.join(map(text, values))}]"


def is_one(value: str, wanted: Iterable[str]) -> str:
    """Return a test that a value is one of some texts."""
    found = list(wanted)
    return f"{value} == {text(found[0])}" if len(found) == 1 else f"{value} in {texts(found)}"


def matches(value: str, pattern: str) -> str:
    """Return a test that a text matches a pattern, in which ``*`` is any text."""
    if ALL not in pattern:
        return f"{value} == {text(pattern)}"
    if not pattern.strip(ALL):
        return "true"
    if pattern.find(ALL) == len(pattern) - 1:
        return f"{value}.startsWith({text(pattern[:-1])})"
    escaped = ".*".join(
        "".join(f"\\{one}" if one in _SPECIAL else one for one in part)
        for part in pattern.split(ALL)
    )
    return f"{value}.matches({text(f'^(?s:{escaped})$')})"


# Users.


def accounts(agent: Agent) -> tuple[User, ...]:
    """Return the users that are service accounts."""
    return tuple(user for user in agent.users if user.service_account is not None)


def prefixes(agent: Agent) -> tuple[User, ...]:
    """Return the users that a prefix tells."""
    return tuple(user for user in agent.users if user.prefix is not None)


def is_agent(agent: Agent, terms: Terms) -> str:
    """Return a test of the user, who has a name."""
    names = [account_user(*user.account) for user in agent.users if user.account is not None]
    tests = [is_one(terms.username, names)] if names else []
    tests += [
        f"{terms.username}.startsWith({text(user.prefix or '')}) && has({terms.groups}) && "
        f"{text(user.group or '')} in {terms.groups}"
        for user in prefixes(agent)
    ]
    return some(tests)


def has_token_source(agent: Agent) -> bool:
    """Return whether the token of a service account may tell the node."""
    return Source.TOKEN in (agent.node or (Source.TOKEN,))


def node_of_token(terms: Terms) -> str:
    """Return the node that a token names, which must be there."""
    return f"{terms.extra}[{text(NODE_NAME)}][0]"


def is_bound(terms: Terms, *keys: str) -> str:
    """Return a test that a token names exactly one of some things, such as its pod."""
    tests = [f"has({terms.extra})"]
    for key in map(text, keys):
        values = f"{terms.extra}[{key}]"
        tests.append(f"{key} in {terms.extra} && size({values}) == 1 && {values}[0] != ''")
    return every(*tests)


# Requests and objects.


def of_resources(resources: Sequence[str], plural: str, sub_resource: str) -> str:
    """Return a test that a request is about one of some resources.

    Args:
        resources: with their subresources.
        plural: names that of the request.
        sub_resource: likewise; it may be missing.
    """
    whole = [resource for resource in resources if "/" not in resource]
    tests = []
    if whole:
        none = f"(!has({sub_resource}) || {sub_resource} == '')"
        tests.append(f"{none} && {is_one(plural, whole)}")
    for resource in resources:
        name, slash, sub = resource.partition("/")
        if slash:
            which = f"{sub_resource} != ''" if sub == ALL else f"{sub_resource} == {text(sub)}"
            tests.append(f"has({sub_resource}) && {which} && {plural} == {text(name)}")
    return some(tests)


def at(root: str, steps: Sequence[str]) -> str:
    """Return what is at a path, which must be there."""
    return root + "".join(f".{one}" if is_identifier(one) else f"[{text(one)}]" for one in steps)


def present(steps: Sequence[str], root: str) -> str:
    """Return a test that every step of a path is there."""
    return every(f"{root} != null", is_at(steps, root))


def is_at(steps: Sequence[str], root: str) -> str:
    """Return a test that every step of a path is there, given that its root is an object."""
    tests = []
    for index, step in enumerate(steps):
        value = at(root, steps[:index])
        if index:
            tests.append(f"type({value}) == map")
        tests.append(f"{text(step)} in {value}")
    return every(*tests)
