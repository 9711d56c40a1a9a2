"""The object before a write: only what a patch names can have changed."""

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy.extra import Extra
from noderestrict.policy.records import NodeRecord, PodRecord
from tests.replay.audit.logged import (
    ADMIN,
    USER,
    at,
    event,
    judged,
    merged,
    node,
    pod,
    row,
    stored,
    undecided,
    verdicts,
)

KEY = "node-restriction.kubernetes.io/a"
POINTER = "/metadata/labels/node-restriction.kubernetes.io~1a"
LABELLED, PLAIN = node(**{KEY: "b"}), node()
TAINT = {"key": "a", "effect": "NoExecute"}
OWNER = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "o1"}
STRICT = Extra.of(parse_strict_rules("all"))
ALLOCATED = "nodeAllocatableResourceClaimStatuses"
ALLOCATION = [{"resourceClaimName": "c", "mapping": [{"name": "cpu", "quantity": "1"}]}]


def with_(kind: dict[str, Any], part: str, **fields: Any) -> dict[str, Any]:
    return {**kind, part: {**kind.get(part, {}), **fields}}


TAINTED = with_(PLAIN, "spec", taints=[TAINT])
OWNED = with_(PLAIN, "metadata", ownerReferences=[OWNER])


def patch(body: Any, after: dict[str, Any], **more: Any) -> dict[str, Any]:
    return event("patch", "nodes", "n1", requestObject=body, responseObject=after, **more)


@pytest.mark.parametrize(
    ("body", "after", "rule"),
    [
        ({"metadata": {"labels": {KEY: "b"}}}, LABELLED, "nodes/labels"),
        ({"metadata": {"labels": {KEY: None}}}, PLAIN, "nodes/labels"),
        ({"metadata": {"labels": {"$patch": "replace", KEY: "b"}}}, LABELLED, "nodes/labels"),
        ([{"op": "add", "path": POINTER, "value": "b"}], LABELLED, "nodes/labels"),
        ([{"op": "add", "path": "/metadata/labels", "value": {KEY: "b"}}], LABELLED,
         "nodes/labels"),
        ([{"op": "replace", "path": POINTER, "value": "b"}], LABELLED, "nodes/labels"),
        ([{"op": "remove", "path": POINTER}], PLAIN, "nodes/labels"),
        ([{"op": "move", "from": POINTER, "path": "/metadata/labels/x"}], node(x="b"),
         "nodes/labels"),
        ([{"op": "copy", "from": "/metadata/labels/x", "path": POINTER}],
         node(x="b", **{KEY: "b"}), "nodes/labels"),
        ({"spec": {"taints": [TAINT]}}, TAINTED, "nodes/taints"),
        ({"spec": {"taints": []}}, PLAIN, "nodes/taints"),
        ({"spec": {"taints": None}}, PLAIN, "nodes/taints"),
        ([{"op": "add", "path": "/spec/taints/-", "value": TAINT}], TAINTED, "nodes/taints"),
        ([{"op": "add", "path": "/spec/taints/0", "value": TAINT}], TAINTED, "nodes/taints"),
        ([{"op": "remove", "path": "/spec/taints/0"}], PLAIN, "nodes/taints"),
        ([{"op": "replace", "path": "/spec/taints/0/effect", "value": "NoExecute"}], TAINTED,
         "nodes/taints"),
        ({"metadata": {"ownerReferences": [OWNER]}}, OWNED, "nodes/owner-references"),
        ({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": "o1"}]}}, PLAIN,
         "nodes/owner-references"),
        ({"metadata": {"ownerReferences": None}}, PLAIN, "nodes/owner-references"),
        ({"spec": {"configSource": {"configMap": {"name": "c"}}}},
         with_(PLAIN, "spec", configSource={"configMap": {"name": "c"}}), "nodes/config-source"),
        ({"metadata": {"annotations": {"a/b": "c"}}}, with_(PLAIN, "metadata",
         annotations={"a/b": "c"}), "nodes/annotations"),
        ({"metadata": {"annotations": {"a/b": None}}}, PLAIN, "nodes/annotations"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}}, PLAIN,
         "nodes/finalizers"),
        ({"metadata": {"finalizers": ["a/b"]}}, with_(PLAIN, "metadata", finalizers=["a/b"]),
         "nodes/finalizers"),
        ({"metadata": {"$setElementOrder/finalizers": ["b/c", "a/b"]}},
         with_(PLAIN, "metadata", finalizers=["b/c", "a/b"]), "nodes/finalizers"),
        ({"spec": {"unschedulable": True}}, with_(PLAIN, "spec", unschedulable=True),
         "nodes/unschedulable"),
        ({"spec": {"unschedulable": False}}, PLAIN, "nodes/unschedulable"),
        ({"spec": {"unschedulable": None}}, PLAIN, "nodes/unschedulable"),
        ([{"op": "replace", "path": "/spec/unschedulable", "value": False}], PLAIN,
         "nodes/unschedulable"),
        ({"spec": {"podCIDRs": ["10.0.0.0/24"]}}, with_(PLAIN, "spec", podCIDRs=["10.0.0.0/24"]),
         "nodes/pod-cidr"),
        ({"spec": {"providerID": "a://1"}}, with_(PLAIN, "spec", providerID="a://1"),
         "nodes/provider-id"),
    ],
)  # fmt: skip
def test_a_patch_of_any_kind_is_judged_by_what_it_names(
    body: Any, after: dict[str, Any], rule: str
) -> None:
    found = row(judged(patch(body, stored(after, 5)), extra=STRICT))
    assert (found.allowed, found.rule, found.certainty) == (False, rule, "inferred")


@pytest.mark.parametrize(
    "body",
    [
        {"status": {"conditions": [{"type": "Ready"}], "$setElementOrder/conditions": []}},
        {"metadata": {"uid": "u1", "resourceVersion": "4", "name": "n1"}, "status": None},
        {"metadata": {"labels": {}}, "spec": {}},
        {"metadata": {"labels": {"example.com/a": "b", "kubernetes.io/os": None}}},
        {"metadata": {"annotations": {"a": None}}},
        {"spec": {"podCIDR": "10.0.0.0/24", "unschedulable": True}},
        [{"op": "replace", "path": "/status/phase", "value": "x"}],
        [{"op": "test", "path": POINTER, "value": "b"}],
        [{"op": "remove", "path": "/metadata/labels/example.com~1a"}],
        {"kind": "Node", "apiVersion": "v1", "status": {}},
    ],
)
def test_what_a_patch_does_not_name_is_not_held_against_it(body: Any) -> None:
    """The Node has what a node must not set: an administrator has set it."""
    guarded = with_(with_(LABELLED, "spec", taints=[TAINT]), "metadata", ownerReferences=[OWNER])
    found = row(judged(patch(body, stored(guarded, 5))))
    assert (found.allowed, found.certainty, found.rests_on) == (True, "known", "")


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"labels": None}},
        {"metadata": {"labels": {"$patch": "replace", "example.com/a": "b"}}},
        {"metadata": None},
        {"spec": None},
        {"spec": {"$retainKeys": ["podCIDR"]}},
        {"$patch": "replace", "metadata": {"name": "n1"}},
        [{"op": "replace", "path": "/metadata/labels", "value": {}}],
        [{"op": "replace", "path": "/metadata", "value": {"name": "n1"}}],
        [{"op": "remove", "path": "/metadata/labels"}],
    ],
)
def test_what_a_patch_hides_decides_nothing_unless_the_log_shows_it(body: Any) -> None:
    one = undecided(judged(patch(body, stored(PLAIN, 5))))
    assert one.missing == "what the patch removes or replaces is not in the log"
    full = with_(with_(LABELLED, "spec", taints=[TAINT]), "metadata", ownerReferences=[OWNER])
    earlier = patch({"status": {}}, stored(full, 3), user=ADMIN)
    found = row(judged(earlier, patch(body, stored(PLAIN, 5))))
    assert (found.allowed, found.certainty) == (False, "inferred")
    assert found.rests_on == "what the patch names was before as cp1.log:1 shows it"
    harmless = patch({"status": {}}, stored(node(**{"example.com/b": "c"}), 3), user=ADMIN)
    assert row(judged(harmless, patch(body, stored(PLAIN, 5)))).allowed


@pytest.mark.parametrize("body", ["x", 5, [{"op": "mend"}], [5], [{"op": "add"}], None])
def test_a_patch_that_is_none_decides_nothing(body: Any) -> None:
    one = undecided(judged(patch(body, stored(LABELLED, 5))))
    assert one.missing == "the patch is not in the log"


@pytest.mark.parametrize(("was", "becomes"), [("x", {}), ({}, "x"), (["x"], {}), ({}, True)])
def test_labels_that_are_no_map_cost_only_their_own_event(was: Any, becomes: Any) -> None:
    """An API server stores no such object, but whoever writes the log may."""
    sets = {"metadata": {"labels": {KEY: "b"}}}
    earlier = at(1, patch(sets, stored(with_(PLAIN, "metadata", labels=was), 3), user=ADMIN))
    odd = at(2, patch(sets, stored(with_(PLAIN, "metadata", labels=becomes), 4)))
    last = at(3, event("patch", "nodes", "n2", requestObject={}, responseObject=node("n2")))
    _, second = judged(earlier, odd, last)
    assert row([second]).rule == "nodes/own-name"


def test_an_administrators_change_in_between_is_not_the_nodes() -> None:
    """The log of the node's API server shows nothing of it."""
    report: dict[str, Any] = {"status": {"conditions": []}}
    earlier, later = patch(report, stored(PLAIN, 1)), patch(report, stored(LABELLED, 3))
    assert verdicts(judged(earlier, later)) == ["allowed", "allowed"]


def test_a_label_that_is_there_already_is_no_change() -> None:
    sets = {"metadata": {"labels": {KEY: "b"}}}
    admin = at(1, patch(sets, stored(LABELLED, 3), user=ADMIN))
    again = at(2, patch(sets, stored(LABELLED, 3)))
    found = row(judged(admin, again))
    assert (found.allowed, found.certainty) == (True, "known")
    and_more = at(2, patch({**sets, "status": {"phase": "x"}}, stored(LABELLED, 4)))
    found = row(judged(admin, and_more))
    assert (found.allowed, found.certainty) == (True, "inferred")


def test_a_change_that_somebody_made_unseen_is_not_taken_for_the_earlier_state() -> None:
    sets = {"metadata": {"labels": {KEY: "b"}}}
    admin = at(1, patch(sets, stored(LABELLED, 3), user=ADMIN))
    unseen = at(2, event("patch", "nodes", "n1", user=ADMIN, level="Metadata"))
    sets_again = at(3, patch(sets, stored(LABELLED, 9)))
    assert verdicts(judged(admin, unseen, sets_again)) == ["nodes/labels"]


def test_a_later_request_does_not_excuse_an_earlier_one() -> None:
    sets = {"metadata": {"labels": {KEY: "b"}}}
    first, second = patch(sets, stored(LABELLED, 3)), patch(sets, stored(LABELLED, 3))
    slow = {"requestReceivedTimestamp": "2025-01-01T00:00:01Z",
            "stageTimestamp": "2025-01-01T00:00:05Z"}  # fmt: skip
    quick = {"requestReceivedTimestamp": "2025-01-01T00:00:02Z",
             "stageTimestamp": "2025-01-01T00:00:03Z"}  # fmt: skip
    # Whichever of two that overlap was first, both named the label.
    assert verdicts(judged({**second, **quick}, {**first, **slow})) == ["nodes/labels"] * 2
    # Another API server's clock may be late: a report that changes nothing is no excuse.
    report = at(2, patch({"status": {}}, stored(LABELLED, 3)))
    assert verdicts(merged([at(3, first)], [report])) == ["allowed", "nodes/labels"]
    # But one of two that name the label has set it.
    assert verdicts(merged([at(3, first)], [at(2, second)])) == ["nodes/labels", "allowed"]


def test_a_dry_run_patch_is_compared_with_the_version_that_it_left_alone() -> None:
    sets = {"metadata": {"labels": {KEY: "b"}}}
    dry = {"requestURI": "/api/v1/nodes/n1?dryRun=All&fieldManager=a"}
    shown = at(1, patch({"status": {}}, stored(LABELLED, 3), user=ADMIN))
    found = row(judged(shown, at(2, patch(sets, stored(LABELLED, 3), **dry))))
    assert (found.allowed, found.certainty, found.dry_run) == (True, "known", True)
    shown = at(1, patch({"status": {}}, stored(PLAIN, 3), user=ADMIN))
    found = row(judged(shown, at(2, patch(sets, stored(LABELLED, 3), **dry))))
    assert (found.rule, found.certainty, found.dry_run) == ("nodes/labels", "known", True)


def test_a_patch_that_names_the_version_is_compared_with_that_version() -> None:
    sets = {"metadata": {"labels": {KEY: "b"}, "resourceVersion": "3"}}
    shown = at(1, patch({"status": {}}, stored(PLAIN, 3), user=ADMIN))
    found = row(judged(shown, at(2, patch(sets, stored(LABELLED, 7)))))
    assert (found.rule, found.certainty) == ("nodes/labels", "known")


APPLY = {"requestURI": "/api/v1/nodes/n1?fieldManager=agent&force=true"}


def managed(kind: dict[str, Any], fields: dict[str, Any], manager: str = "agent") -> dict[str, Any]:
    entry = {"manager": manager, "operation": "Apply", "fieldsV1": fields}
    return with_(kind, "metadata", managedFields=[entry])


def test_an_applied_configuration_removes_what_its_manager_leaves_out() -> None:
    owned: dict[str, Any] = {"f:metadata": {"f:labels": {f"f:{KEY}": {}, "f:x": {}}}}
    before = managed(node(x="y", **{KEY: "b"}), owned)
    after = managed(node(x="y"), {"f:metadata": {"f:labels": {"f:x": {}}}})
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {"x": "y"}}}
    shown = patch({"status": {}}, stored(before, 3), user=ADMIN)
    found = row(judged(shown, patch(body, stored(after, 5), **APPLY)))
    assert (found.rule, found.certainty) == ("nodes/labels", "inferred")
    # Another manager's label stays.
    others = managed(node(x="y", **{KEY: "b"}), owned, manager="other")
    shown = patch({"status": {}}, stored(others, 3), user=ADMIN)
    after = managed(node(x="y", **{KEY: "b"}), {"f:metadata": {"f:labels": {"f:x": {}}}})
    assert row(judged(shown, patch(body, stored(after, 5), **APPLY))).allowed
    # What it applied before is not known.
    one = undecided(judged(patch(body, stored(after, 5), **APPLY)))
    assert one.missing == "what the manager applied before is not in the log"
    # It was no apply: managedFields would say so.
    updated = with_(node(x="y"), "metadata", managedFields=[{"operation": "Update"}])
    assert row(judged(patch(body, stored(updated, 5), **APPLY))).allowed


def test_an_applied_configuration_is_judged_by_what_it_sets() -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {KEY: "b"}}}
    after = managed(LABELLED, {"f:metadata": {"f:labels": {f"f:{KEY}": {}}}})
    assert row(judged(patch(body, stored(after, 5), **APPLY))).rule == "nodes/labels"


@pytest.mark.parametrize("resource", ["nodes", "nodes/status"])
def test_what_the_api_server_puts_back_was_tried_all_the_same(resource: str) -> None:
    name, _, sub = resource.partition("/")
    body, after = {"spec": {"taints": [TAINT]}}, stored(TAINTED if not sub else PLAIN, 5)
    one = event("patch", name, "n1", ref={"subresource": sub}, requestObject=body,
                responseObject=after)  # fmt: skip
    found = row(judged(one))
    assert (found.rule, found.certainty) == ("nodes/taints", "known" if sub else "inferred")


def test_a_webhook_that_removes_a_label_again_does_not_hide_the_attempt() -> None:
    found = row(judged(patch({"metadata": {"labels": {KEY: "b"}}}, stored(PLAIN, 5))))
    assert found.rule == "nodes/labels"
    found = row(judged(patch([{"op": "add", "path": POINTER, "value": "b"}], stored(PLAIN, 5))))
    assert found.rule == "nodes/labels"


def put(new: dict[str, Any], after: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return event("update", "nodes", "n1", requestObject=new, responseObject=after, **more)


def test_a_put_is_compared_with_the_version_that_it_names() -> None:
    shown = patch({"status": {}}, stored(LABELLED, 3), user=ADMIN)
    removing = put(stored(PLAIN, 3), stored(PLAIN, 4))
    found = row(judged(shown, removing))
    assert (found.rule, found.certainty) == ("nodes/labels", "known")
    keeping = put(stored(LABELLED, 3), stored(LABELLED, 4))
    assert row(judged(shown, keeping)).certainty == "known"
    # The log shows it only afterwards: another API server was late.
    assert verdicts(judged(removing, shown)) == ["nodes/labels"]


@pytest.mark.parametrize(
    ("version", "uid", "missing"),
    [
        ("7", "u1", "the object before is not in the log: version 7"),
        ("3", "u2", "the object before is not in the log: version 3"),
        ("", "u1", "the object before is not in the log, and the request names no version of it"),
    ],
)
def test_a_put_of_another_version_is_not_judged_by_an_old_one(
    version: str, uid: str, missing: str
) -> None:
    shown = patch({"status": {}}, stored(LABELLED, 3), user=ADMIN)
    new = with_(PLAIN, "metadata", uid=uid, resourceVersion=version)
    one = undecided(judged(shown, put(new, stored(PLAIN, 9, uid))))
    assert one.missing == missing


def test_a_put_that_changes_nothing_is_known_by_its_answer() -> None:
    found = row(judged(put(stored(LABELLED, 3), stored(LABELLED, 3))))
    assert (found.allowed, found.certainty) == (True, "known")
    # It tried to change a label, which a webhook put back.
    assert row(judged(put(stored(PLAIN, 3), stored(LABELLED, 3)))).rule == "nodes/labels"


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ({"responseStatus": {"code": 200}}, True),
        ({"responseStatus": {"code": 409}}, False),
        ({"responseStatus": {"code": 403}}, False),
        ({"responseStatus": {"code": 500}}, False),
        ({"stage": "Panic"}, False),
        ({"requestURI": "/api/v1/nodes/n1?dryRun=All"}, False),
        ({"requestURI": "/api/v1/nodes/n1?x=dryRun&fieldManager=All"}, True),
        ({"ref": {"subresource": "scale"}}, False),
        ({"verb": "get"}, True),
    ],
)
def test_only_what_was_stored_serves_as_an_earlier_object(
    answer: dict[str, Any], known: bool
) -> None:
    shown = event(
        answer.pop("verb", "update"), "nodes", "n1", user=ADMIN,
        responseObject=stored(LABELLED, 3), **answer,
    )  # fmt: skip
    found = judged(shown, put(stored(PLAIN, 3), stored(PLAIN, 4)))
    assert verdicts(found) == (["nodes/labels"] if known else ["undecided"])


def status(name: str, body: Any, after: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return event("patch", "pods", name, ref={"namespace": "ns", "subresource": "status"},
                 requestObject=body, responseObject=after, **more)  # fmt: skip


@pytest.mark.parametrize(
    ("body", "after", "rule"),
    [
        ({"status": {"phase": "Running"}}, pod("p", "n1"), "allowed"),
        ({"status": {"phase": "Running"}}, pod("p", "n2"), "pods/status-own"),
        ({"metadata": {"labels": {"a": "b"}}},
         with_(pod("p", "n1"), "metadata", labels={"a": "b"}), "pods/status-labels"),
        ({"metadata": {"labels": {"a": None}}}, pod("p", "n1"), "pods/status-labels"),
        ({"status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "x"}]}},
         with_(pod("p", "n1"), "status",
               resourceClaimStatuses=[{"name": "c", "resourceClaimName": "x"}]),
         "pods/status-resource-claims"),
        ({"status": {"resourceClaimStatuses": [{"$patch": "delete", "name": "c"}]}},
         pod("p", "n1"), "pods/status-resource-claims"),
        ({"status": {"extendedResourceClaimStatus": {"resourceClaimName": "x"}}},
         with_(pod("p", "n1"), "status", extendedResourceClaimStatus={"resourceClaimName": "x"}),
         "pods/status-extended-resource-claim"),
        ({"status": {ALLOCATED: ALLOCATION}},
         with_(pod("p", "n1"), "status", **{ALLOCATED: ALLOCATION}),
         "pods/status-node-allocatable-claims"),
        ({"status": {ALLOCATED: [{"resourceClaimName": "c", "mapping": []}]}},
         with_(pod("p", "n1"), "status", **{ALLOCATED: [{"resourceClaimName": "c"}]}),
         "pods/status-node-allocatable-claims"),
        ({"status": {ALLOCATED: [{"$patch": "delete", "resourceClaimName": "c"}]}},
         pod("p", "n1"), "pods/status-node-allocatable-claims"),
        ({"spec": {"nodeName": "n1"}}, pod("p", "n2"), "pods/status-own"),
    ],
)  # fmt: skip
def test_a_pods_status_is_judged_by_its_answer(body: Any, after: dict[str, Any], rule: str) -> None:
    assert verdicts(judged(status("p", body, after))) == [rule]


@pytest.mark.parametrize("field", ["resourceClaimStatuses", "nodeAllocatableResourceClaimStatuses"])
def test_what_a_whole_update_keeps_of_a_pods_status_is_no_change(field: str) -> None:
    before = with_(pod("p", "n1"), "status", **{field: [{"resourceClaimName": "c", "name": "c"}]})
    read = event("get", "pods", "p", ref={"namespace": "ns"}, user=ADMIN,
                 responseObject=stored(before, 1))  # fmt: skip
    written = event("update", "pods", "p", ref={"namespace": "ns", "subresource": "status"},
                    requestObject=stored(before, 1), responseObject=stored(before, 2))  # fmt: skip
    assert verdicts(judged(read, written)) == ["allowed"]


def claim(**parts: Any) -> dict[str, Any]:
    metadata = {"name": "c", "namespace": "ns", "uid": "c1", "resourceVersion": "5"}
    spec = {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v"}
    capacity = {"capacity": {"storage": "1Gi"}}
    return {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": metadata,
            "spec": spec, "status": capacity, **parts}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"status": {"capacity": {"storage": "2Gi"}}}, "allowed"),
        ({"metadata": {"resourceVersion": "4"}, "status": {"conditions": None}}, "allowed"),
        ({"status": {"phase": "Lost"}}, "persistentvolumeclaims/status-fields"),
        ({"metadata": {"annotations": {"a": "b"}}}, "persistentvolumeclaims/status-fields"),
        ({"metadata": {"finalizers": []}}, "persistentvolumeclaims/status-fields"),
        ({"spec": {"volumeName": "w"}}, "persistentvolumeclaims/status-fields"),
    ],
)
@pytest.mark.parametrize("level", ["RequestResponse", "Request"])
def test_a_claims_status_is_judged_by_what_the_patch_names(
    body: dict[str, Any], rule: str, level: str
) -> None:
    after = {**claim(), "status": {**claim()["status"], **body.get("status", {})}}
    after["metadata"] = {**after["metadata"], **body.get("metadata", {})}
    shown = {"responseObject": after} if level == "RequestResponse" else {}
    one = event("patch", "persistentvolumeclaims", "c", level=level, requestObject=body,
                ref={"namespace": "ns", "subresource": "status"}, **shown)  # fmt: skip
    assert verdicts(judged(one)) == [rule]


def token(uid: str, *audiences: str, **more: Any) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}
    body = {"kind": "TokenRequest",
            "spec": {"audiences": list(audiences), "boundObjectRef": reference}}  # fmt: skip
    return event("create", "serviceaccounts", "web", requestObject=body,
                 responseStatus={"code": 201}, ref={"namespace": "ns", "subresource": "token"},
                 **more)  # fmt: skip


def with_token(name: str, node_name: str, uid: str) -> dict[str, Any]:
    volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    one = with_(pod(name, node_name), "metadata", uid=uid)
    return with_(one, "spec", volumes=[volume])


def test_a_token_is_for_the_pod_of_the_uid_that_it_names() -> None:
    where = {"ref": {"namespace": "ns"}, "user": ADMIN}
    first = event("create", "pods", "p", responseObject=with_token("p", "n1", "p1"), **where)
    second = event("create", "pods", "p", responseObject=with_token("p", "n2", "p2"), **where)
    found = row(judged(first, second, token("p1")))
    assert (found.allowed, found.certainty) == (True, "known")
    assert verdicts(judged(first, second, token("p2"))) == ["serviceaccounts-token/bound-pod"]
    one = undecided(judged(first, second, token("p3")))
    assert one.missing == "pods ns/p is not in the log; --state can hold it"
    # The log shows the pod only afterwards.
    assert verdicts(judged(token("p1"), first, second)) == ["allowed"]
    foreign = row(judged(first, token("p1", "vault")))
    assert (foreign.rule, foreign.certainty) == ("serviceaccounts-token/audience", "inferred")


def test_a_pod_is_where_it_was_bound_even_if_the_log_shows_it_before_that() -> None:
    where = {"ref": {"namespace": "ns"}, "user": ADMIN}
    unbound = event("create", "pods", "p", responseObject=with_token("p", "", "p1"), **where)
    binding = {"kind": "Binding", "metadata": {"name": "p", "namespace": "ns", "uid": "p1"},
               "target": {"kind": "Node", "name": "n1"}}  # fmt: skip
    bound = event("create", "pods", "p", user=ADMIN, requestObject=binding,
                  ref={"namespace": "ns", "subresource": "binding"})  # fmt: skip
    assert verdicts(judged(unbound, token("p1"))) == ["undecided"]
    assert verdicts(judged(unbound, bound, token("p1"))) == ["allowed"]
    # An answer may come late.
    running = event("patch", "pods", "p", responseObject=with_token("p", "n2", "p1"), **where)
    assert verdicts(judged(running, unbound, token("p1"))) == ["serviceaccounts-token/bound-pod"]


def test_a_token_whose_driver_is_not_known_is_undecided() -> None:
    where = {"ref": {"namespace": "ns"}, "user": ADMIN}
    one = with_(pod("p", "n1"), "spec", volumes=[{"name": "c", "csi": {"driver": "d"}}])
    shown = event("create", "pods", "p", responseObject=one, **where)
    assert undecided(judged(shown, token("p", "vault"))).missing.startswith("csidrivers d is not")


def evict(uid: str = "", **more: Any) -> dict[str, Any]:
    options = {"deleteOptions": {"preconditions": {"uid": uid}}} if uid else {}
    return event("create", "pods", "p", ref={"namespace": "ns", "subresource": "eviction"},
                 requestObject={"kind": "Eviction", "metadata": {"name": "p"}, **options},
                 **more)  # fmt: skip


def test_a_name_means_another_pod_later() -> None:
    where = {"ref": {"namespace": "ns"}, "user": ADMIN}
    first = event("create", "pods", "p", responseObject=with_token("p", "n1", "p1"), **where)
    second = event("create", "pods", "p", responseObject=with_token("p", "n2", "p2"), **where)
    assert verdicts(judged(first, evict(), second, evict())) == ["allowed", "pods/evict-own"]
    found = row(judged(first, second, evict("p1")))
    assert (found.allowed, found.certainty) == (True, "known")
    # Which of both it was cannot be told afterwards; one alone it was.
    assert verdicts(judged(evict(), first, second)) == ["undecided"]
    found = row(judged(evict(), second))
    assert (found.rule, found.certainty) == ("pods/evict-own", "inferred")


def test_a_mirror_pod_names_the_node_that_was_there() -> None:
    owner = {**OWNER, "uid": "u1", "controller": True}
    mirror = with_(pod("m", "n1"), "metadata", ownerReferences=[owner],
                   annotations={"kubernetes.io/config.mirror": "x"})  # fmt: skip
    one = event("create", "pods", "m", requestObject=mirror, ref={"namespace": "ns"})
    older = patch({"status": {}}, stored(PLAIN, 3, "u0"), user=ADMIN)
    anew = patch({"status": {}}, stored(PLAIN, 5, "u1"), user=ADMIN)
    assert verdicts(judged(older, one)) == ["pods/mirror-owner-uid"]
    assert verdicts(judged(older, one, anew)) == ["allowed"]
    assert verdicts(judged(one)) == ["undecided"]
    assert verdicts(judged(one, state=[NodeRecord("n1", "u1")])) == ["allowed"]


def test_an_event_is_about_what_its_answer_names() -> None:
    def told(verb: str, **about: str) -> dict[str, Any]:
        shown = {"kind": "Event", "metadata": {"name": "e", "namespace": "ns", "uid": "e1"},
                 "involvedObject": about}  # fmt: skip
        body = shown if verb == "create" else {"count": 2}
        return event(verb, "events", "e", ref={"namespace": "ns"}, requestObject=body,
                     responseObject=shown)  # fmt: skip

    own, foreign = {"kind": "Node", "name": "n1"}, {"kind": "Node", "name": "n2"}
    about = {"kind": "Pod", "name": "p"}
    for verb in ("create", "patch"):
        assert verdicts(judged(told(verb, **own), extra=STRICT)) == ["allowed"]
        assert verdicts(judged(told(verb, **foreign), extra=STRICT)) == ["events/about-own"]
        assert verdicts(judged(told(verb, **foreign))) == ["allowed"]
        assert verdicts(judged(told(verb, **about), extra=STRICT)) == ["undecided"]
        known = [PodRecord("ns", "p", "p1", "n1")]
        assert verdicts(judged(told(verb, **about), extra=STRICT, state=known)) == ["allowed"]
    at_request = {**told("patch", **own), "level": "Request", "responseObject": None}
    assert verdicts(judged(at_request, extra=STRICT)) == ["undecided"]
    assert verdicts(judged(told("create", **own), at_request, extra=STRICT)) == ["allowed"] * 2


def test_each_object_of_a_deletecollection_is_judged() -> None:
    def slices(*nodes: str, **more: Any) -> dict[str, Any]:
        items = [{"metadata": {"name": name}, "spec": {"nodeName": name}} for name in nodes]
        return event("deletecollection", "resourceslices", "",
                     ref={"apiGroup": "resource.k8s.io", "apiVersion": "v1"},
                     responseObject={"kind": "ResourceSliceList", "items": items},
                     **more)  # fmt: skip

    assert verdicts(judged(slices("n1", "n1"))) == ["allowed"]
    assert verdicts(judged(slices("n1", "n2"))) == ["resourceslices/own-node-name"]
    assert verdicts(judged(slices())) == ["nothing to delete"]
    unseen = {**slices(), "responseObject": None, "level": "Request"}
    assert verdicts(judged(unseen)) == ["undecided"]
    uri = "/apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1"
    assert verdicts(judged({**unseen, "requestURI": uri})) == ["allowed"]
    pods = event("deletecollection", "pods", "", ref={"namespace": "ns"},
                 responseObject={"kind": "PodList", "items": [pod("p", "n1")]})  # fmt: skip
    assert verdicts(judged(pods)) == ["pods/delete-own"]


def test_users_that_are_no_nodes_are_not_judged() -> None:
    user = {**USER, "groups": ["system:authenticated"]}
    assert judged(patch({"metadata": {"labels": {KEY: "b"}}}, LABELLED, user=user)) == []


def csr(*names: str) -> dict[str, Any]:
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "system:node:n1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = builder.add_extension(alternatives, critical=False).sign(
        ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    )
    request = base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()
    body = {"kind": "CertificateSigningRequest",
            "spec": {"signerName": "kubernetes.io/kubelet-serving",
                     "request": request}}  # fmt: skip
    return event("create", "certificatesigningrequests", "", requestObject=body,
                 ref={"apiGroup": "certificates.k8s.io"})  # fmt: skip


def test_a_serving_certificate_is_for_the_addresses_that_the_log_shows() -> None:
    addresses = [{"type": "Hostname", "address": "n1.example.com"}]
    shown = patch({"status": {}}, with_(stored(PLAIN, 3), "status", addresses=addresses),
                  user=ADMIN)  # fmt: skip
    own, foreign = csr("n1.example.com"), csr("other.example.com")
    assert verdicts(judged(shown, own, extra=STRICT)) == ["allowed"]
    found = row(judged(shown, foreign, extra=STRICT))
    assert (found.rule, found.certainty) == ("certificatesigningrequests/addresses", "inferred")
    assert found.rests_on == "nodes n1 was as the log or --state shows it"
    # The log shows the Node only afterwards, or never.
    assert verdicts(judged(own, shown, extra=STRICT)) == ["allowed"]
    assert verdicts(judged(own, extra=STRICT)) == ["undecided"]
    assert verdicts(judged(foreign)) == ["allowed"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"annotations": {"a/b": "c"}}, "nodes/annotations"),
        ({"finalizers": ["a/b"]}, "nodes/finalizers"),
    ],
)
def test_a_put_shows_what_strict_rules_read(change: dict[str, Any], rule: str) -> None:
    before = with_(PLAIN, "spec", podCIDR="10.0.0.0/24", unschedulable=True, providerID="a://1")
    shown = patch({"status": {}}, stored(before, 3), user=ADMIN)
    assert verdicts(judged(shown, put(stored(before, 3), None), extra=STRICT)) == ["allowed"]
    changed = put(stored(with_(before, "metadata", **change), 3), None)
    assert verdicts(judged(shown, changed, extra=STRICT)) == [rule]
    for field, value, guard in (
        ("podCIDR", "10.9.0.0/24", "nodes/pod-cidr"),
        ("unschedulable", False, "nodes/unschedulable"),
        ("providerID", "a://2", "nodes/provider-id"),
    ):
        changed = put(stored(with_(before, "spec", **{field: value}), 3), None)
        assert verdicts(judged(shown, changed, extra=STRICT)) == [guard]
