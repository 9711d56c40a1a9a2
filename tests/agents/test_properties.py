"""No policy file, however written, changes what a kubelet or anybody but an agent may do."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from noderestrict import admission
from noderestrict.agents.agents import Agents
from noderestrict.agents.file import (
    Agent,
    Bound,
    Operation,
    Owner,
    Plain,
    PolicyFile,
    Unnamed,
    User,
    Write,
)
from noderestrict.agents.load import PolicyFileError, dump, parse
from noderestrict.policy.settings import Settings
from tests.builders import LISTERS, obj, review

SETTINGS = Settings.for_version()
# Names near those that matter, as a careless or a hostile author would write them.
PREFIXES = st.sampled_from(
    ["system:node:", "system:node", "system:node:n1", "system:", "s", "ovn:", "ovn", "kube", "k"]
)
GROUPS = st.sampled_from(["system:nodes", "system:masters", "system:authenticated", "ovns"])
USERS = st.one_of(
    st.builds(User, service_account=st.sampled_from(["kube-system/a", "ns/sa1", "node/n1"])),
    st.builds(User, prefix=PREFIXES, group=GROUPS),
)
RELATIONS = st.sampled_from(
    [Plain.OWN_NODE, Plain.OWN_PODS, Plain.ANY, Bound(name="{node}"), Bound(owner=Owner.NODE)]
)
WRITES = st.builds(
    Write,
    resources=st.sampled_from([("nodes",), ("pods",), ("nodes", "pods", "leases")]),
    operations=st.just((Operation.CREATE, Operation.UPDATE, Operation.DELETE)),
    relation=RELATIONS,
)
AGENTS = st.lists(
    st.builds(
        Agent,
        name=st.sampled_from(["a", "b"]),
        users=st.lists(USERS, min_size=1, max_size=3).map(tuple),
        unnamed_writes=st.sampled_from(list(Unnamed)),
        write=st.lists(WRITES, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=2,
)
KUBELET = ("system:node:n1", ("system:nodes", "system:authenticated"))
OTHERS = [
    ("kubernetes-admin", ("system:masters", "system:authenticated")),
    ("kube-controller", ("system:authenticated",)),
    ("system:kube-scheduler", ("system:authenticated",)),
    ("system:serviceaccount:kube-system:other", ("system:serviceaccounts",)),
    ("system:node:n1", ("system:authenticated",)),
    ("", ()),
]


def bodies(user: tuple[str, tuple[str, ...]]) -> list[bytes]:
    name, groups = user
    by: dict[str, Any] = {"user": name, "groups": groups}
    node: dict[str, Any] = {
        "metadata": {"name": "n2", "labels": {"a": "b"}},
        "spec": {"taints": [{"key": "a"}]},
    }
    before: dict[str, Any] = {"metadata": {"name": "n2"}, "spec": {}}
    old, new = obj("nodes", **before), obj("nodes", **node)
    own = obj("nodes", **{**node, "metadata": {"name": "n1"}})
    return [
        review("nodes", "UPDATE", name="n2", new=new, old=old, **by),
        review("nodes", "UPDATE", name="n1", new=own, old=own, **by),
        review("nodes", "DELETE", name="n2", old=old, **by),
        review("pods", "DELETE", name="p2", namespace="ns", **by),
        review("secrets", "DELETE", name="a", namespace="ns", **by),
    ]


def verdicts(user: tuple[str, tuple[str, ...]], agents: Agents) -> list[object]:
    decoder = admission.TypedDecoder()
    decoder._in_force.agents = agents
    found: list[object] = []
    for body in bodies(user):
        for decode in (
            lambda given: admission.decode(given, agents),
            decoder.decode,
            decoder.decode,
        ):
            request = decode(body)
            assert request.agent is None
            found.append(admission.evaluate(request, SETTINGS, LISTERS))
    return found


def loaded(agents: list[Agent]) -> Agents | None:
    try:
        return Agents(parse(dump(PolicyFile(tuple(agents))).encode(), "agents.yaml").agents)
    except PolicyFileError:
        return None


@given(AGENTS)
def test_a_kubelet_is_judged_as_without_any_policy(agents: list[Agent]) -> None:
    held = loaded(agents)
    if held is not None:
        assert verdicts(KUBELET, held) == verdicts(KUBELET, Agents())


@given(AGENTS, st.sampled_from(OTHERS))
def test_others_are_judged_as_without_any_policy(
    agents: list[Agent], user: tuple[str, tuple[str, ...]]
) -> None:
    held = loaded(agents)
    if held is None or _names(agents, user):
        return
    assert verdicts(user, held) == verdicts(user, Agents())


def _names(agents: list[Agent], user: tuple[str, tuple[str, ...]]) -> bool:
    """Return whether the policy names this user itself."""
    return any(
        each.prefix is not None and user[0].startswith(each.prefix) and each.group in user[1]
        for agent in agents
        for each in agent.users
    )


KEYS = st.sampled_from(["agents", "name", "users", "prefix", "write", "read", "x"])
TEXTS = st.sampled_from(["agents", "name", "serviceAccount", "own-node", "any", "a/b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
)


def refusal(text: bytes) -> str:
    """Return why a text is refused, "" if it is a policy."""
    try:
        found = parse(text, "agents.yaml")
    except PolicyFileError as error:
        return str(error)
    return "" if parse(dump(found).encode(), "again.yaml") == found else "read back otherwise"


@given(VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
def test_any_text_is_a_policy_or_refused_in_one_line(text: bytes) -> None:
    message = refusal(text)
    assert "\n" not in message
    assert not message or message.startswith("agents.yaml: ")


@given(AGENTS)
def test_what_is_dumped_follows_the_schema(agents: list[Agent]) -> None:
    policy = PolicyFile(tuple(agents))
    assert msgspec.convert(msgspec.to_builtins(policy), PolicyFile) == policy
