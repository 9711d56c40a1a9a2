"""What the match conditions keep from the webhook, every rule allows.

The conditions are evaluated as the API server does it, over the reviews of the conformance suites
and over reviews in which a single field differs.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from noderestrict import admission
from noderestrict.cli._flags import parse_strict_rules
from noderestrict.policy.decision import Allowed
from noderestrict.policy.extra import Extra
from noderestrict.policy.keys import parse_node_keys
from noderestrict.policy.settings import Settings
from noderestrict.render.registration import webhook_configuration
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from tests.builders import LISTERS, Object, node, obj, review, update_node

cel = pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

CONFORMANCE = Path(__file__).parents[1] / "conformance"
SUITES = ("admission/generated.jsonl", "captured/captured.jsonl")
STRICT = Extra.of(parse_strict_rules("all"), forbidden_labels=parse_node_keys("*=tier|a/*"))
POLICIES = [pytest.param(Extra(), id="plugin"), pytest.param(STRICT, id="strict")]
#: The rendered webhooks, by the strict rules that are on.
WEBHOOKS: dict[frozenset[str], list[Object]] = {
    extra.rules: webhook_configuration({"url": "https://x"}, extra=extra)["webhooks"]
    for extra in (Extra(), STRICT)
}

SKIPPED, ASKED, FAILED = "skipped", "asked", "failed"


@cache
def _compiled(expression: str) -> Any:
    variables = dict.fromkeys(("request", "object", "oldObject"), cel.Type.DYN)
    return cel.NewEnv(variables=variables).compile(expression)


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
    found = SKIPPED
    for webhook in WEBHOOKS[extra.rules]:
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
