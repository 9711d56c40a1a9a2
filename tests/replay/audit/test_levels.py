"""Below level RequestResponse: a patch is judged by what it names."""

from typing import Any

import pytest

from noderestrict.policy.records import PodRecord
from tests.replay.audit.logged import (
    ADMIN,
    event,
    judged,
    node,
    pod,
    row,
    stored,
    undecided,
    verdicts,
)

KEY = "node-restriction.kubernetes.io/a"
POINTER = "/metadata/labels/node-restriction.kubernetes.io~1a"


def patch(body: Any, resource: str = "nodes", name: str = "n1", **more: Any) -> dict[str, Any]:
    kind, _, sub = resource.partition("/")
    ref = {"subresource": sub, **({"namespace": "ns"} if kind == "pods" else {})}
    return event("patch", kind, name, level="Request", requestObject=body, ref=ref, **more)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "allowed"),
        ({"metadata": {"labels": {"kubernetes.io/os": "linux"}}}, "allowed"),
        ({"metadata": {"labels": {KEY: "b"}}}, "nodes/labels"),
        ({"metadata": {"labels": {KEY: None}}}, "nodes/labels"),
        ({"metadata": {"labels": None}}, "undecided"),
        ({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}, "nodes/taints"),
        ({"spec": {"taints": None}}, "nodes/taints"),
        ({"metadata": {"ownerReferences": []}}, "nodes/owner-references"),
        ([{"op": "add", "path": POINTER, "value": "b"}], "nodes/labels"),
        ([{"op": "remove", "path": POINTER}], "nodes/labels"),
        ([{"op": "add", "path": "/spec/taints/-", "value": {"key": "a"}}], "nodes/taints"),
        ([{"op": "replace", "path": "/status/phase", "value": "x"}], "allowed"),
        ([{"op": "replace", "path": "", "value": {}}], "undecided"),
    ],
)
@pytest.mark.parametrize("resource", ["nodes", "nodes/status"])
def test_a_nodes_patch_is_judged_by_what_it_names(body: Any, rule: str, resource: str) -> None:
    assert verdicts(judged(patch(body, resource))) == [rule]


def test_what_nothing_guarded_is_named_in_is_known() -> None:
    found = row(judged(patch({"status": {"phase": "x"}})))
    assert (found.allowed, found.certainty) == (True, "known")
    found = row(judged(patch({"metadata": {"labels": {KEY: "b"}}})))
    assert (found.certainty, found.rests_on) == (
        "inferred", "level Request: the patch changed what it names",
    )  # fmt: skip


STATUS = {"metadata": {"uid": "p1"}, "status": {"phase": "Running"}}


def test_a_pods_status_needs_the_pods_node() -> None:
    one = patch(STATUS, "pods/status", "p")
    found = undecided(judged(one))
    assert found.missing == "level Request does not show on which node the pod runs"
    assert verdicts(judged(one, state=[PodRecord("ns", "p", "p1", "n1")])) == ["allowed"]
    assert verdicts(judged(one, state=[PodRecord("ns", "p", "p1", "n2")])) == ["pods/status-own"]
    # It was another pod.
    assert verdicts(judged(one, state=[PodRecord("ns", "p", "p9", "n2")])) == ["undecided"]


@pytest.mark.parametrize(("node_name", "rule"), [("n1", "allowed"), ("n2", "pods/status-own")])
def test_the_scheduler_tells_on_which_node_a_pod_runs(node_name: str, rule: str) -> None:
    binding = {"kind": "Binding", "metadata": {"name": "p", "namespace": "ns", "uid": "p1"},
               "target": {"kind": "Node", "name": node_name}}  # fmt: skip
    bound = event("create", "pods", "p", user=ADMIN, level="Request", requestObject=binding,
                  ref={"namespace": "ns", "subresource": "binding"})  # fmt: skip
    one = patch(STATUS, "pods/status", "p")
    assert verdicts(judged(bound, one)) == [rule]
    # Another API server was first.
    assert verdicts(judged(one, bound)) == [rule]


def test_a_changed_label_is_refused_on_whichever_node_the_pod_runs() -> None:
    relabels = {**STATUS, "metadata": {"labels": {"a": "b"}}}
    found = row(judged(patch(relabels, "pods/status", "p")))
    assert (found.rule, found.certainty) == ("pods/status-labels", "inferred")


def test_a_mirror_pod_shows_where_it_runs() -> None:
    made = event("create", "pods", "p", level="Request", ref={"namespace": "ns"}, user=ADMIN,
                 requestObject=pod("p", "n1"))  # fmt: skip
    assert verdicts(judged(made, patch({"status": {}}, "pods/status", "p"))) == ["allowed"]


SETS = {"metadata": {"labels": {KEY: "b"}}}
REMOVES = {"metadata": {"labels": {KEY: None}}}
CLEARS = {"metadata": {"labels": None}}
TAINTS = {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}
UNTAINTS: dict[str, Any] = {"spec": {"taints": []}}
OWNS = {"metadata": {"ownerReferences": [{"uid": "o1", "name": "o"}]}}
ADDS = [{"op": "add", "path": POINTER, "value": "b"}]


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        (SETS, SETS, "allowed"),
        (SETS, ADDS, "allowed"),
        (ADDS, SETS, "allowed"),
        (SETS, REMOVES, "nodes/labels"),
        (REMOVES, REMOVES, "allowed"),
        (REMOVES, SETS, "nodes/labels"),
        (SETS, {"metadata": {"labels": {KEY: "c"}}}, "nodes/labels"),
        (SETS, {"metadata": {"labels": {f"{KEY}x": "b"}}}, "nodes/labels"),
        (CLEARS, CLEARS, "allowed"),
        (CLEARS, SETS, "nodes/labels"),
        (SETS, CLEARS, "nodes/labels"),
        (SETS, {**SETS, "status": {"phase": "x"}}, "allowed"),
        (TAINTS, TAINTS, "allowed"),
        (TAINTS, UNTAINTS, "nodes/taints"),
        (UNTAINTS, UNTAINTS, "allowed"),
        # What else a list holds that is merged is not known.
        (OWNS, OWNS, "nodes/owner-references"),
    ],
)
def test_what_an_earlier_patch_left_behind_is_known(first: Any, second: Any, rule: str) -> None:
    assert verdicts(judged(patch(first, user=ADMIN), patch(second))) == [rule]


def test_what_a_status_cannot_change_is_not_taken_for_changed() -> None:
    status = patch(TAINTS, "nodes/status", user=ADMIN)
    assert verdicts(judged(status, patch(TAINTS))) == ["nodes/taints"]
    assert verdicts(judged(status, patch(UNTAINTS))) == ["nodes/taints"]
    made = event("create", "nodes", "n1", level="Request", user=ADMIN, requestObject=node())
    assert verdicts(judged(made, status, patch(TAINTS))) == ["nodes/taints"]
    by_admin = patch(TAINTS, user=ADMIN)
    assert verdicts(judged(by_admin, patch(TAINTS, "nodes/status"))) == ["allowed"]
    assert verdicts(judged(by_admin, patch(UNTAINTS, "nodes/status"))) == ["nodes/taints"]


def test_a_write_of_which_the_log_shows_nothing_ends_what_is_known() -> None:
    unseen = event("patch", "nodes", "n1", user=ADMIN, level="Metadata")
    assert verdicts(judged(patch(SETS, user=ADMIN), unseen, patch(SETS))) == ["nodes/labels"]
    assert verdicts(judged(patch(SETS, user=ADMIN), patch(SETS, name="n2"), patch(SETS)))[1:] == [
        "allowed"
    ]
    gone = event("delete", "nodes", "n1", user=ADMIN, level="Request")
    assert verdicts(judged(patch(SETS, user=ADMIN), gone, patch(SETS))) == ["nodes/labels"]
    put = event("update", "nodes", "n1", user=ADMIN, level="Request", requestObject=node())
    assert verdicts(judged(patch(SETS, user=ADMIN), put, patch(SETS))) == ["nodes/labels"]


def test_a_label_that_an_earlier_request_set_is_no_change() -> None:
    made = event("create", "nodes", "n1", level="Request", user=ADMIN, requestObject=node())
    assert verdicts(judged(made, patch(SETS), patch(SETS))) == ["nodes/labels", "allowed"]
    owned = judged(made, patch(OWNS), patch(OWNS))
    assert verdicts(owned) == ["nodes/owner-references", "allowed"]


def test_a_policy_may_log_a_status_without_its_answer() -> None:
    """As many do: what was done there shows in the next answer."""
    shown = event("patch", "nodes", "n1", user=ADMIN, requestObject={"status": {}},
                  responseObject=stored(node(), 3))  # fmt: skip
    again = event("patch", "nodes", "n1", requestObject=SETS,
                  responseObject=stored(node(**{KEY: "b"}), 9))  # fmt: skip
    assert verdicts(judged(shown, again)) == ["nodes/labels"]
    assert verdicts(judged(shown, patch(SETS, "nodes/status"), again)) == [
        "nodes/labels", "allowed",
    ]  # fmt: skip
    assert verdicts(judged(shown, patch(REMOVES, "nodes/status"), again)) == [
        "allowed", "nodes/labels",
    ]  # fmt: skip


def bound(name: str, node_name: str) -> dict[str, Any]:
    binding = {"kind": "Binding", "metadata": {"name": name, "namespace": "ns", "uid": "p1"},
               "target": {"kind": "Node", "name": node_name}}  # fmt: skip
    return event("create", "pods", name, user=ADMIN, level="Request", requestObject=binding,
                 ref={"namespace": "ns", "subresource": "binding"})  # fmt: skip


def token(name: str, *audiences: str) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "p1"}
    spec = {"audiences": list(audiences), "boundObjectRef": reference}
    return event("create", "serviceaccounts", "web", level="Request",
                 requestObject={"kind": "TokenRequest", "spec": spec},
                 ref={"namespace": "ns", "subresource": "token"})  # fmt: skip


def made(name: str = "", prefix: str = "", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name} if name else {"generateName": prefix}
    body = {"kind": "Pod", "metadata": metadata, "spec": {"containers": [], **spec}}
    return event("create", "pods", name, level="Request", user=ADMIN, requestObject=body,
                 ref={"namespace": "ns"})  # fmt: skip


OPTS_OUT: dict[str, Any] = {"automountServiceAccountToken": False}


def test_a_token_needs_the_pod_and_not_only_its_node() -> None:
    assert verdicts(judged(bound("p", "n1"), token("p"))) == ["undecided"]
    known = [PodRecord("ns", "p", "p1", "n1", audiences=("",))]
    assert verdicts(judged(bound("p", "n1"), token("p"), state=known)) == ["allowed"]


@pytest.mark.parametrize("given", [{"name": "web-x2x2x"}, {"prefix": "web-"}])
def test_a_pod_mounts_what_it_was_made_with(given: dict[str, str]) -> None:
    name = "web-x2x2x"
    found = row(judged(made(**given), bound(name, "n1"), token(name)))
    assert (found.allowed, found.certainty) == (True, "inferred")
    foreign = judged(made(**given), bound(name, "n2"), token(name))
    assert verdicts(foreign) == ["serviceaccounts-token/bound-pod"]
    refused = ["serviceaccounts-token/audience"]
    assert verdicts(judged(made(**given), bound(name, "n1"), token(name, "vault"))) == refused
    assert verdicts(judged(made(**given, **OPTS_OUT), bound(name, "n1"), token(name))) == refused
    other = judged(made(prefix="db-"), bound(name, "n1"), token(name))
    assert verdicts(other) == ["undecided"]


def test_pods_of_one_prefix_that_differ_tell_nothing() -> None:
    different = made(prefix="web-", **OPTS_OUT), made(prefix="web-"), made(prefix="web-")
    assert verdicts(judged(*different, bound("web-x2x2x", "n1"), token("web-x2x2x"))) == [
        "undecided"
    ]


def test_a_put_needs_the_object_before() -> None:
    one = event("update", "nodes", "n1", level="Request", requestObject=node())
    assert verdicts(judged(one)) == ["undecided"]


def test_level_metadata_decides_by_names_alone() -> None:
    found = undecided(judged(event("patch", "nodes", "n1", level="Metadata")))
    assert found.missing == "level Metadata holds no object"
    assert verdicts(judged(event("patch", "nodes", "n2", level="Metadata"))) == ["nodes/own-name"]
    lease = {"ref": {"apiGroup": "coordination.k8s.io", "namespace": "kube-node-lease"}}
    for name, rule in (("n1", "allowed"), ("n2", "leases/own-name")):
        one = event("update", "leases", name, level="Metadata", **lease)
        assert verdicts(judged(one)) == [rule]


def test_a_truncated_event_is_named_as_such() -> None:
    truncated = {"annotations": {"audit.k8s.io/truncated": "true"}}
    for verb in ("create", "patch", "update"):
        found = undecided(judged(event(verb, "nodes", "n1", **truncated)))
        assert "truncated" in found.missing
