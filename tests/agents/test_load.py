"""A policy file is read whole, or refused in one line that says where and why."""

import pytest

from noderestrict.agents.file import (
    Agent,
    Bound,
    Mode,
    Operation,
    Plain,
    PolicyFile,
    Read,
    RelationKind,
    Source,
    User,
    Verb,
    Write,
    kind_of,
)
from noderestrict.agents.load import MAX_BYTES, PolicyFileError, dump, merge, parse
from noderestrict.agents.paths import parse_path

GOOD = """
agents:
- name: driver
  users: [{serviceAccount: storage/driver}]
  node: [token, pod]
  mode: off
  write:
  - resources: [nodes, nodes/status]
    operations: [UPDATE]
    relation: own-node
    fields: ['metadata.annotations["example.com/*"]', 'status.conditions[type=Ready]']
  - apiGroups: [example.com]
    resources: [volumes]
    operations: [CREATE, DELETE]
    relation: {field: spec.nodeName}
  read:
  - resources: [pods]
    relation: own-pods
"""


def refusal(text: str) -> str:
    with pytest.raises(PolicyFileError) as caught:
        parse(text.encode(), "agents.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("agents.yaml: ")
    return message


def one(**fields: str) -> str:
    """Return a file with one agent, some of whose fields are other YAML."""
    given = {"name": "driver", "users": "[{serviceAccount: storage/driver}]", **fields}
    lines = [f"{key}: {value}" for key, value in given.items()]
    return "agents:\n- " + "\n  ".join(lines) + "\n"


def write(**fields: str) -> str:
    given = {
        "resources": "[nodes]",
        "operations": "[UPDATE]",
        "relation": "own-node",
        **fields,
    }
    return one(write="[{" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}]")


def read(**fields: str) -> str:
    given = {"resources": "[nodes]", "relation": "own-node", **fields}
    return one(read="[{" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}]")


def test_a_file_becomes_its_structs() -> None:
    assert parse(GOOD.encode(), "agents.yaml") == PolicyFile(
        (
            Agent(
                "driver",
                (User(service_account="storage/driver"),),
                node=(Source.TOKEN, Source.POD),
                mode=Mode.OFF,
                write=(
                    Write(
                        ("nodes", "nodes/status"),
                        (Operation.UPDATE,),
                        Plain.OWN_NODE,
                        fields=(
                            'metadata.annotations["example.com/*"]',
                            "status.conditions[type=Ready]",
                        ),
                    ),
                    Write(
                        ("volumes",),
                        (Operation.CREATE, Operation.DELETE),
                        Bound(field="spec.nodeName"),
                        api_groups=("example.com",),
                    ),
                ),
                read=(Read(("pods",), Plain.OWN_PODS, (Verb.GET, Verb.LIST, Verb.WATCH)),),
            ),
        )
    )


def test_what_is_written_is_read_again() -> None:
    policy = parse(GOOD.encode(), "agents.yaml")
    assert parse(dump(policy).encode(), "again.yaml") == policy


def test_json_is_read_too() -> None:
    text = '{"agents": [{"name": "a", "users": [{"serviceAccount": "b/c"}]}]}'
    assert parse(text.encode(), "agents.json").agents[0].name == "a"


def test_relations_have_kinds() -> None:
    assert kind_of(Plain.ANY) == RelationKind.ANY
    assert kind_of(Bound(label="a/b")) == RelationKind.LABEL


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("empty",)),
        ("- a", ("Expected `object`".lower(),)),
        ("agents: {}", ("agents", "array")),
        ("agents: []", ("agents", "length >= 1")),
        ("agents: [", ("line",)),
        (one(name="Driver"), ("agent 'Driver'", "name", "'Driver'")),
        (one(nodes="[token]"), ("agent 'driver'", "unknown key 'nodes'")),
        (one(name="driver\n  name: driver"), ("'name' is set twice", "line 3")),
        (one(node="[label]"), ("node[0]", "'label'", "pod, token, username")),
        (one(node="[pod, pod]"), ("node: pod, pod",)),
        (one(node="token"), ("node", "array", "'token'")),
        (one(mode="of"), ("mode", "'of'", "audit, enforce, off, warn")),
        (one(users="[]"), ("users", "length >= 1")),
        (one(users="[{}]"), ("users[0]", "either serviceAccount, or prefix and group")),
        (one(users="[{prefix: 'a:'}]"), ("users[0]", "group")),
        (one(users="[{group: a}]"), ("users[0]",)),
        (one(users="[{serviceAccount: driver}]"), ("serviceAccount", "'driver'", "NAMESPACE/NAME")),
        (one(users="[{serviceAccount: a/b, prefix: c, group: d}]"), ("users[0]",)),
        (one(unnamedWrites="allow"), ("unnamedWrites", "'allow'", "holds nothing")),
        (one(unnamedReads="deny"), ("unnamedReads", "'deny'", "allow, refuse")),
        (write(operations="[PATCH]"), ("write[0].operations[0]", "'PATCH'", "UPDATE")),
        (write(operations="[]"), ("write[0].operations",)),
        (write(relation="own"), ("write[0].relation", "'own'", "own-node", "{name: …}")),
        (write(relation="{name: a}"), ("write[0].relation.name", "'a'", "{node}")),
        (write(relation="{name: '{node}-*'}"), ("write[0].relation.name", "'{node}-*'")),
        (write(relation="{}"), ("write[0].relation", "exactly one")),
        (write(relation="{owner: pod}"), ("write[0].relation.owner", "'pod'", "node")),
        (write(relation="{owner: node, label: a}"), ("write[0].relation", "exactly one")),
        (write(relation="{field: 'a[*]'}"), ("write[0].relation.field", "'a[*]'")),
        (write(relation="{label: 'a b'}"), ("write[0].relation.label", "'a b'")),
        (write(relation="own-pods"), ("write[0].relation", "'own-pods' is for pods")),
        (write(apiGroups="[example.com]"), ("write[0].relation", "'own-node' is for nodes")),
        (write(relation="referenced"), ("write[0].relation", "'referenced' is for reads")),
        (write(resources="['*']"), ("write[0].resources[0]", "'*'")),
        (write(fields="['a b']"), ("write[0].fields[0]", "'a b'")),
        (write(fields="['a[']"), ("write[0].fields[0]", "'a['")),
        (write(operations="[CREATE]", fields="[a]"), ("write[0].fields", "UPDATE")),
        (write(relation="{field: a}", operations="[CONNECT]"), ("operations", "'CONNECT'")),
        (
            write(relation="{label: a}", resources="[pods/eviction]"),
            ("resources", "'pods/eviction'"),
        ),
        (read(relation="{owner: node}"), ("read[0].relation", "'owner' is for writes")),
        (read(relation="{field: a}"), ("read[0].verbs", "'get' has no selector")),
        (read(relation="{label: a}"), ("read[0].verbs", "'get' has no selector")),
        (read(relation="referenced"), ("read[0].resources", "'nodes'", "secrets")),
        (read(verbs="[create]"), ("read[0].verbs[0]", "'create'", "get, list, watch")),
    ],
)  # fmt: skip
def test_an_error_names_file_agent_field_and_value(text: str, parts: tuple[str, ...]) -> None:
    message = refusal(text)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("{prefix: 'system:node:', group: agents}", "may be a node"),
        ("{prefix: 'system:node:n', group: agents}", "may be a node"),
        ("{prefix: 'system:no', group: agents}", "may be a node"),
        ("{prefix: s, group: agents}", "may be a node"),
        ("{prefix: 'agent:', group: 'system:nodes'}", "'system:nodes'"),
        ("{prefix: 'agent:', group: 'system:masters'}", "'system:masters'"),
        ("{prefix: 'system:serviceaccount:kube-system:', group: agents}", "one by one"),
    ],
)
def test_no_agent_may_be_a_node_or_an_administrator(user: str, why: str) -> None:
    message = refusal(one(users=f"[{user}]"))
    assert "agent 'driver': users[0]" in message
    assert why in message


def test_a_source_must_fit_the_users() -> None:
    assert "use token" in refusal(one(node="[username]"))
    prefix = "[{prefix: 'agent:', group: agents}]"
    assert "must be username" in refusal(one(users=prefix, node="[token]"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{serviceAccount: a/b}", "{serviceAccount: a/b}"),
        ("{prefix: 'a:', group: g}", "{prefix: 'a:', group: h}"),
        ("{prefix: 'a:', group: g}", "{prefix: 'a:b:', group: h}"),
        ("{prefix: 'a:b:', group: g}", "{prefix: 'a:', group: h}"),
    ],
)
def test_two_agents_share_no_user(first: str, second: str) -> None:
    one_file, other = (
        parse(one(name=name, users=f"[{user}]").encode(), f"{name}.yaml")
        for name, user in (("x", first), ("y", second))
    )
    with pytest.raises(PolicyFileError, match=r"^y.yaml: agent 'y': users\[0\]: .*agent 'x'"):
        merge([("x.yaml", one_file), ("y.yaml", other)])


def test_two_agents_have_different_names() -> None:
    policy = parse(GOOD.encode(), "x.yaml")
    with pytest.raises(PolicyFileError, match=r"^y.yaml: agent 'driver': name: x.yaml has"):
        merge([("x.yaml", policy), ("y.yaml", policy)])


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "agents: &a [" + "x," * 50 + "]\nb: &b [" + "*a," * 500 + "]\nc: [" + "*b," * 500 + "]",
        "agents: !!python/object:os.system [a]",
        "x" * (MAX_BYTES + 1),
        "\0",
        "[" * 5000,
        r'"\ud800"',
    ],
)
def test_hostile_files_are_refused_in_one_line(text: str) -> None:
    refusal(text)


def test_text_that_cannot_be_seen_is_refused() -> None:
    assert "cannot be seen" in refusal(one(users=r'[{prefix: "agent:\u202e", group: agents}]'))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("status", ("status",)),
        ("status.conditions", ("status", "conditions")),
        ('metadata.labels["a.b/c*"]', ("metadata", "labels", "a.b/c*")),
        ("spec.pools[*].size", ("spec", "pools", "*", "size")),
        ("status.conditions[type=Ready].reason", ("status", "conditions", "type=Ready", "reason")),
    ],
)
def test_a_path_has_steps(text: str, steps: tuple[str, ...]) -> None:
    path = parse_path(text)
    assert (path.steps, str(path)) == (steps, text)


@pytest.mark.parametrize("text", ["", ".a", "a.", "a..b", "a[", "a[0]", '["a"]', "a[b]", "a" * 600])
def test_other_texts_are_no_paths(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|longer"):
        parse_path(text)
