"""What the match conditions keep from the webhook, every rule allows.

The conditions are evaluated as the API server does it, over the reviews of the conformance suites
and over reviews in which a single field differs.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from noderestrict import admission
from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy import table as table_module
from noderestrict.policy.cel import MOST_KEYS
from noderestrict.policy.decision import Allowed, forbidden
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import parse_node_keys
from noderestrict.policy.rule import ANY, OPERATIONS, Rule, Target
from noderestrict.policy.rules import nodes
from noderestrict.policy.settings import Settings
from noderestrict.render.conditions import own_node
from noderestrict.render.registration import webhook_configuration, webhook_rules
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from tests.builders import LISTERS, Object, node, obj, review, update_node

cel = pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")
ext_optional = pytest.importorskip("cel_expr_python.ext.ext_optional")

CONFORMANCE = Path(__file__).parents[1] / "conformance"
SUITES = ("admission/generated.jsonl", "captured/captured.jsonl")
STRICT = Extra.of(parse_strict_rules("all"), forbidden_labels=parse_node_keys("*=tier|a/*"))
POLICIES = [pytest.param(Extra(), id="plugin"), pytest.param(STRICT, id="strict")]
#: The rendered webhooks for newer and older API servers, by the strict rules that are on.
WEBHOOKS: dict[frozenset[str], list[list[Object]]] = {
    extra.rules: [
        webhook_configuration({"url": "https://x"}, extra=extra, optional_fields=optional)[
            "webhooks"
        ]
        for optional in (True, False)
    ]
    for extra in (Extra(), STRICT)
}

SKIPPED, ASKED, FAILED = "skipped", "asked", "failed"


@cache
def _compiled(expression: str) -> Any:
    variables = dict.fromkeys(("request", "object", "oldObject"), cel.Type.DYN)
    extensions = [ext_optional.ExtOptional()] if ".?" in expression else []
    return cel.NewEnv(variables=variables, extensions=extensions).compile(expression)


def _matches(rule: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    resource, sub = request["resource"], request.get("subResource", "")
    names = {resource["resource"] + (f"/{sub}" if sub else "")}
    if sub:
        names.add(f"{resource['resource']}/*")
    return (
        resource.get("group", "") in rule["apiGroups"]
        and not {resource["version"], "*"}.isdisjoint(rule["apiVersions"])
        and request["operation"] in rule["operations"]
        and not names.isdisjoint(rule["resources"])
    )


def outcome(request: Mapping[str, Any], extra: Extra) -> str:
    """Say whether the API server asks a webhook about a request, or why it does not."""
    fields = {k: v for k, v in request.items() if k not in ("object", "oldObject")}
    # The API server leaves out what is empty.
    fields["userInfo"] = {k: v for k, v in fields["userInfo"].items() if v is not None}
    variables = {
        "request": fields,
        "object": request.get("object"),
        "oldObject": request.get("oldObject"),
    }
    newer, older = (_outcome(request, variables, one) for one in WEBHOOKS[extra.rules])
    assert newer == older
    return newer


def _outcome(
    request: Mapping[str, Any], variables: Mapping[str, Any], webhooks: Sequence[Object]
) -> str:
    found = SKIPPED
    for webhook in webhooks:
        if not any(_matches(rule, request) for rule in webhook["rules"]):
            continue
        values = [
            _compiled(condition["expression"]).eval(data=variables)
            for condition in webhook["matchConditions"]
        ]
        # As the API server: any false skips the webhook, else any error fails the request.
        if any(value.type() == cel.Type.BOOL and value.value() is False for value in values):
            continue
        if any(value.type() == cel.Type.ERROR for value in values):
            return FAILED
        found = ASKED
    return found


@pytest.mark.parametrize("extra", POLICIES)
@pytest.mark.parametrize("suite", SUITES)
def test_no_review_that_a_rule_refuses_is_kept_from_the_webhook(suite: str, extra: Extra) -> None:
    path = CONFORMANCE / suite
    listers = load_state([str(path.parent / "state.json")])
    settings = Settings.for_version(extra=extra)
    counts = {SKIPPED: 0, ASKED: 0, FAILED: 0}
    wrong = []
    for case in cases(str(path)):
        assert isinstance(case, Case)
        request = json.loads(case.review)["request"]
        decision = admission.evaluate(admission.decode(case.review), settings, listers)
        allowed = isinstance(decision, Allowed)
        rule = "" if allowed else getattr(decision, "rule", "")
        found = outcome(request, extra)
        counts[found] += 1
        # An API server stores no object that does not decode, and no rule's webhook covers every
        # resource for the sake of a user without a node.
        harmless = allowed or rule in ("request/object", "identity/node-name")
        if (found == SKIPPED and not harmless) or (found == FAILED and allowed):
            wrong.append(f"{case.id}: {found}, {rule or 'allowed'}")
    assert not wrong, "\n".join(wrong[:20])
    assert counts[SKIPPED] > 0
    assert counts[ASKED] > 0


def _status(**changes: Any) -> Object:
    """A Node as a kubelet reports it, with changes by path."""
    value = node(
        {"kubernetes.io/hostname": "n1"},
        metadata={
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            "finalizers": ["example.com/a"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "1"}],
        },
        spec={
            "podCIDR": "10.1.0.0/24",
            "podCIDRs": ["10.1.0.0/24"],
            "providerID": "a://1",
            "taints": [{"key": "a", "effect": "NoSchedule"}],
        },
        status={"conditions": [{"type": "Ready", "status": "True"}]},
    )
    for path, change in changes.items():
        holder = value
        *parents, last = path.split(".")
        for parent in parents:
            holder = holder[parent]
        if change is None:
            holder.pop(last, None)
        else:
            holder[last] = change
    return value


def _node_changes() -> Iterator[tuple[str, Any]]:
    yield "metadata.labels", {"kubernetes.io/hostname": "n1", "k8s.io/x": "y"}
    yield "metadata.labels", {}
    yield "metadata.labels", None
    yield "metadata.ownerReferences", []
    yield "metadata.ownerReferences", None
    yield "spec.taints", []
    yield "spec.taints", None
    yield "spec.configSource", {"configMap": {"name": "x"}}
    yield "metadata.annotations", {"example.com/a": "b"}
    yield "metadata.finalizers", []
    yield "spec.podCIDR", "10.2.0.0/24"
    yield "spec.podCIDRs", ["10.2.0.0/24"]
    yield "spec.providerID", "a://2"
    yield "spec.unschedulable", True


@pytest.mark.parametrize("extra", POLICIES)
@pytest.mark.parametrize("sub", ["", "status"])
@pytest.mark.parametrize(("path", "change"), list(_node_changes()))
def test_a_change_of_a_single_field_of_a_node_is_asked_about_if_a_rule_refuses_it(
    path: str, change: Any, sub: str, extra: Extra
) -> None:
    before, after = _status(), _status(**{path: change})
    for old, new in ((before, after), (after, before)):
        body = update_node(old, new, sub)
        assert_asked_if_refused(body, extra)


def test_an_unchanged_node_status_is_not_asked_about() -> None:
    for extra in (Extra(), STRICT):
        body = update_node(_status(), _status(**{"status.phase": "Running"}), "status")
        assert outcome(json.loads(body)["request"], extra) == SKIPPED


@pytest.mark.parametrize("extra", POLICIES)
@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("metadata.labels", {"app": "other"}),
        ("metadata.labels", None),
        ("spec.nodeName", "n2"),
        ("spec.nodeName", None),
        ("status.resourceClaimStatuses", [{"name": "a", "resourceClaimName": "b"}]),
        ("status.extendedResourceClaimStatus", {"resourceClaimName": "b", "requestMappings": []}),
    ],
)
def test_a_change_of_a_single_field_of_a_pod_is_asked_about_if_a_rule_refuses_it(
    path: str, change: Any, extra: Extra
) -> None:
    before = obj(
        "pods",
        metadata={"name": "p1", "namespace": "ns", "labels": {"app": "web"}},
        spec={"nodeName": "n1", "containers": []},
        status={"phase": "Running"},
    )
    after = copy.deepcopy(before)
    parent, _, field = path.partition(".")
    after[parent].pop(field, None)
    if change is not None:
        after[parent][field] = change
    for old, new in ((before, after), (after, before), (after, after)):
        body = review("pods", "UPDATE", sub="status", name="p1", namespace="ns", new=new, old=old)
        assert_asked_if_refused(body, extra)


def assert_asked_if_refused(body: bytes, extra: Extra) -> None:
    decision = admission.evaluate(
        admission.decode(body), Settings.for_version(extra=extra), LISTERS
    )
    if not isinstance(decision, Allowed):
        assert outcome(json.loads(body)["request"], extra) == ASKED, decision


def request_of(body: bytes) -> Object:
    request: Object = json.loads(body)["request"]
    return request


def assert_skipped_and_allowed(body: bytes, extra: Extra) -> None:
    decision = admission.evaluate(
        admission.decode(body), Settings.for_version(extra=extra), LISTERS
    )
    assert isinstance(decision, Allowed), decision
    assert outcome(request_of(body), extra) == SKIPPED


#: Names that are not the node's n1, but begin or end like it, or like its user name.
OTHERS = ["", "n2", "n", "1", "n11", "xn1", "N1", "system:node:n1", "node:n1", None]


def named(resource: str, operation: str, name: Any, namespace: str = "", **more: Any) -> bytes:
    """Return a review of an object, which has the name where the operation has one."""
    metadata = {"name": name, "namespace": namespace} if name is not None else {}
    value = obj(resource, metadata=metadata)
    return review(
        resource,
        operation,
        name="" if name is None else name,
        namespace=namespace,
        new=value if operation != "DELETE" else None,
        old=value if operation != "CREATE" else None,
        **more,
    )


OWN_NAME = [("leases", "kube-node-lease"), ("csinodes", "")]


@pytest.mark.parametrize("extra", POLICIES)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("resource", "namespace"), OWN_NAME)
def test_what_is_named_as_the_node_is_not_asked_about_and_anything_else_is(
    resource: str, namespace: str, operation: str, extra: Extra
) -> None:
    assert_skipped_and_allowed(named(resource, operation, "n1", namespace), extra)
    for name in OTHERS:
        body = named(resource, operation, name, namespace)
        assert outcome(request_of(body), extra) == ASKED, name
        assert_asked_if_refused(body, extra)


@pytest.mark.parametrize(("resource", "namespace"), OWN_NAME)
@pytest.mark.parametrize("where", ["name", "metadata.name"])
def test_a_name_that_only_the_object_or_only_the_request_has_is_asked_about_if_a_rule_refuses_it(
    resource: str, namespace: str, where: str
) -> None:
    for operation in OPERATIONS:
        request = request_of(named(resource, operation, "n1", namespace))
        if where == "name":
            request["name"] = "n2"
        else:
            for field in ("object", "oldObject"):
                if request[field] is not None:
                    request[field]["metadata"]["name"] = "n2"
        body = json.dumps(
            {
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "request": request,
            }
        )
        assert_asked_if_refused(body.encode(), Extra())


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("namespace", ["", "default", "kube-system", "xkube-node-lease"])
def test_a_lease_of_another_namespace_is_asked_about(operation: str, namespace: str) -> None:
    body = named("leases", operation, "n1", namespace)
    assert outcome(request_of(body), Extra()) == ASKED
    assert_asked_if_refused(body, Extra())


POD_ON_N1 = obj(
    "pods", metadata={"name": "p1", "namespace": "ns"}, spec={"nodeName": "n1", "containers": []}
)


def pod_deletion(name: str, old: Object | None, sub: str = "") -> bytes:
    return review("pods", "DELETE", name=name, namespace="ns", old=old, sub=sub)


def test_the_deletion_of_an_own_pod_is_not_asked_about() -> None:
    assert_skipped_and_allowed(pod_deletion("p1", POD_ON_N1), Extra())


@pytest.mark.parametrize("name", ["p2", "", "p", "gone"])
def test_the_deletion_of_a_pod_by_another_name_is_asked_about(name: str) -> None:
    body = pod_deletion(name, POD_ON_N1)
    assert outcome(request_of(body), Extra()) == ASKED


@pytest.mark.parametrize(
    "old",
    [
        {**POD_ON_N1, "spec": {"nodeName": "n2"}},
        {**POD_ON_N1, "spec": {"nodeName": "1"}},
        {**POD_ON_N1, "spec": {"nodeName": ""}},
        {**POD_ON_N1, "spec": {}},
        # The API server leaves out what is null.
        {field: value for field, value in POD_ON_N1.items() if field != "spec"},
        {field: value for field, value in POD_ON_N1.items() if field != "metadata"},
        {**POD_ON_N1, "metadata": {}},
        None,
    ],
    ids=str,
)
def test_the_deletion_of_a_pod_that_is_not_there_as_ones_own_is_asked_about(
    old: Object | None,
) -> None:
    body = pod_deletion("p1", old)
    assert outcome(request_of(body), Extra()) == ASKED


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("sub", ["", "status", "eviction", "binding", "ephemeralcontainers"])
def test_a_pod_is_asked_about_but_for_its_status_and_its_deletion(operation: str, sub: str) -> None:
    new = POD_ON_N1 if operation != "DELETE" else None
    old = POD_ON_N1 if operation != "CREATE" else None
    body = review("pods", operation, sub=sub, name="p1", namespace="ns", new=new, old=old)
    harmless = (operation, sub) in (("UPDATE", "status"), ("DELETE", ""))
    assert outcome(request_of(body), Extra()) == (SKIPPED if harmless else ASKED)
    assert_asked_if_refused(body, Extra())


NODE_REFERENCE = {"apiVersion": "v1", "kind": "Node", "name": "n1"}


def event(references: Object, group: str, operation: str = "CREATE") -> bytes:
    value = obj("events", metadata={"name": "e", "namespace": "ns"}, **references)
    if group:
        value["apiVersion"] = f"{group}/v1"
    body = json.loads(
        review(
            "events",
            operation,
            name="e",
            namespace="ns",
            new=value if operation != "DELETE" else None,
            old=value if operation != "CREATE" else None,
        )
    )
    body["request"]["resource"]["group"] = group
    return json.dumps(body).encode()


EVENT_GROUPS = pytest.mark.parametrize(
    ("group", "field"), [("", "involvedObject"), ("events.k8s.io", "regarding")]
)


@EVENT_GROUPS
def test_an_event_about_the_own_node_is_not_asked_about_when_it_is_made(
    group: str, field: str
) -> None:
    assert_skipped_and_allowed(event({field: NODE_REFERENCE}, group), STRICT)
    for operation in ("UPDATE", "DELETE"):
        body = event({field: NODE_REFERENCE}, group, operation)
        assert outcome(request_of(body), STRICT) == ASKED


@EVENT_GROUPS
@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Pod"}, {"kind": "Pod", "namespace": "ns", "name": "p2"}, {"kind": ""},
        {"kind": None}, {"kind": "node"}, {"name": "n2"}, {"name": "1"}, {"name": ""},
        {"name": None},
    ],
    ids=str,
)  # fmt: skip
def test_an_event_about_anything_else_is_asked_about(
    group: str, field: str, change: Object
) -> None:
    # The API server leaves out what is null.
    reference = {key: one for key, one in {**NODE_REFERENCE, **change}.items() if one is not None}
    body = event({field: reference}, group)
    assert outcome(request_of(body), STRICT) == ASKED
    assert_asked_if_refused(body, STRICT)


@EVENT_GROUPS
def test_an_event_that_names_something_twice_or_nothing_is_asked_about(
    group: str, field: str
) -> None:
    other = {"involvedObject": "regarding", "regarding": "involvedObject"}[field]
    foreign = {**NODE_REFERENCE, "name": "n2"}
    several: list[Object] = [{field: NODE_REFERENCE, other: foreign}, {field: {}}, {}]
    for references in several:
        body = event(references, group)
        assert outcome(request_of(body), STRICT) == ASKED
        assert_asked_if_refused(body, STRICT)


def registration(**changes: Any) -> bytes:
    """Return the review of a Node that registers itself."""
    labels = {
        "kubernetes.io/hostname": "n1",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "a",
        "x.node.kubernetes.io/y": "z",
        "app": "web",
        "example.com/a": "b",
    }
    value = node(
        {**labels, **changes.pop("labels", {})},
        metadata={
            "annotations": {
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                **changes.pop("annotations", {}),
            },
            **changes.pop("metadata", {}),
        },
        spec={"taints": [{"key": "a", "effect": "NoSchedule"}], **changes.pop("spec", {})},
    )
    name = changes.pop("name", "n1")
    return review("nodes", "CREATE", name=name, new=value, **changes)


@pytest.mark.parametrize("extra", POLICIES)
def test_a_node_that_registers_itself_as_kubelets_do_is_not_asked_about(extra: Extra) -> None:
    assert_skipped_and_allowed(registration(), extra)


@pytest.mark.parametrize("extra", POLICIES)
@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"labels": {key: "x"}}
            for key in (
                "node-restriction.kubernetes.io/a", "a.node-restriction.kubernetes.io/b",
                "kubernetes.io/role", "k8s.io/a", "a.k8s.io/b", "a.kubernetes.io/b",
                "node-role.kubernetes.io/control-plane", "xnode.kubernetes.io/a",
                "kubelet.kubernetes.io.kubernetes.io/a", "kubernetes.io/", "KUBERNETES.io/a",
                "tier", "tiers", "a/b", "ab/c", "a.example.com/b",
            )
        ),
        {"annotations": {"example.com/a": "b"}},
        {"metadata": {"finalizers": ["example.com/a"]}},
        {"metadata": {"finalizers": []}},
        {"spec": {"podCIDR": "10.0.0.0/24"}},
        {"spec": {"podCIDRs": ["10.0.0.0/24"]}},
        {"spec": {"configSource": {"configMap": {"name": "x"}}}},
        {"spec": {"providerID": "a://1"}},
        {"spec": {"unschedulable": True}},
        {"name": "n2"},
        {"name": ""},
        {"name": "1"},
        {"user": "system:node:n11"},
    ],
    ids=str,
)  # fmt: skip
def test_a_node_that_registers_with_more_is_asked_about_if_a_rule_refuses_it(
    changes: Object, extra: Extra
) -> None:
    assert_asked_if_refused(registration(**changes), extra)


@pytest.mark.parametrize("extra", POLICIES)
@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_a_node_that_registers_with_more_than_a_condition_visits_is_asked_about(
    field: str, extra: Extra
) -> None:
    prefix = {"labels": "example.com/", "annotations": "csi.volume.kubernetes.io/"}[field]
    many = {f"{prefix}{index}": "" for index in range(MOST_KEYS + 1)}
    body = registration(**{field: many})
    found = outcome(json.loads(body)["request"], extra)
    assert found == (ASKED if field == "labels" or extra is STRICT else SKIPPED)


@pytest.mark.parametrize("name", ["n2", "", "1", "n11"])
def test_an_unchanged_node_of_another_name_is_asked_about(name: str) -> None:
    for sub in ("", "status"):
        body = json.loads(update_node(_status(), _status(), sub))
        body["request"]["name"] = name
        assert outcome(body["request"], Extra()) == ASKED
        assert_asked_if_refused(json.dumps(body).encode(), Extra())


@pytest.mark.parametrize(
    "user",
    [
        {"username": "system:node:n2", "groups": ["system:authenticated"]},
        {"username": "system:node:n2", "groups": []},
        {"username": "system:node:n2"},
        {"username": "alice", "groups": ["system:nodes"]},
        {"username": "system:nodes:n2", "groups": ["system:nodes"]},
        {"groups": ["system:nodes"]},
        {},
    ],
    ids=str,
)
def test_who_is_no_node_is_not_asked_about(user: Object) -> None:
    request = request_of(named("leases", "UPDATE", "n1", "kube-node-lease"))
    request["userInfo"] = user
    assert outcome(request, Extra()) == SKIPPED
    request["userInfo"] = {"username": "system:node:n2", "groups": ["a", "system:nodes"]}
    assert outcome(request, Extra()) == ASKED


@pytest.mark.parametrize("extra", POLICIES)
def test_whatever_a_rule_judges_is_sent_and_nothing_else(extra: Extra) -> None:
    sent = {
        (group, *resource.partition("/")[::2], operation)
        for rule in webhook_rules(extra=extra)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }
    rows = table_module.table(extra.rules)
    judged = set()
    for group, resource, sub, operation in rows:
        # "*" in a row also stands for the resource itself; in a registration it does not.
        subs = ("", ANY) if sub == ANY else (sub,)
        for one in subs:
            for each in OPERATIONS if operation == ANY else (operation,):
                judged.add((group, resource, one, each))
    for group, resource, sub, operation in judged:
        assert {(group, resource, sub, operation), (group, resource, ANY, operation)} & sent or (
            not sub and (group, resource, "", operation) in sent
        ), (group, resource, sub, operation)
    assert sent <= judged
    assert ("certificates.k8s.io", "certificatesigningrequests", "", "UPDATE") not in sent
    assert ("", "serviceaccounts", "", "CREATE") not in sent


@pytest.mark.parametrize("target", [nodes.CREATE_NODE, nodes.UPDATE_NODE])
def test_a_rule_that_no_condition_mirrors_is_always_asked_about(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_ = _status()
    bodies = {
        nodes.UPDATE_NODE: update_node(node_, node_, "status"),
        nodes.CREATE_NODE: review("nodes", "CREATE", name="n1", new=node()),
    }
    before = own_node(Extra())
    new = Rule("nodes/new", "nothing", (target,), check=lambda _request: forbidden("no"))
    monkeypatch.setattr(table_module, "RULES", (*table_module.RULES, new))
    table_module.table.cache_clear()
    try:
        after = own_node(Extra())
    finally:
        monkeypatch.undo()
        table_module.table.cache_clear()
    for key, body in bodies.items():
        request = request_of(body)
        variables = {"request": request, "object": request["object"],
                     "oldObject": request.get("oldObject")}  # fmt: skip
        asked = [
            _compiled(condition["expression"]).eval(data=variables).value()
            for condition in (before, after)
        ]
        assert asked == [False, key == target]
