"""On which nodes a pod may run, by its node selector and its affinity."""

from typing import Any

import pytest

from noderestrict.doctor.placement import placement_of

Object = dict[str, Any]
NODES: Object = {
    name: {"metadata": {"name": name, "labels": labels}}
    for name, labels in {
        "kubeadm": {"role": ""},
        "k3s": {"role": "true", "cores": "8"},
        "worker": {"cores": "2"},
        "odd": {"cores": "many"},
        "bare": None,
    }.items()
}


def required(*terms: Object) -> Object:
    wanted = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [*terms]}}
    return {"affinity": {"nodeAffinity": wanted}}


def on(key: str, operator: str, *values: str, of: str = "matchExpressions") -> Object:
    return {of: [{"key": key, "operator": operator, "values": [*values]}]}


@pytest.mark.parametrize(
    ("spec", "selected", "text"),
    [
        ({}, [*NODES], ""),
        ({"nodeSelector": {}, "affinity": {"nodeAffinity": {}}}, [*NODES], ""),
        ({"nodeSelector": {"role": ""}}, ["kubeadm"], "role="),
        ({"nodeSelector": {"role": "true", "cores": "8"}}, ["k3s"], "cores=8,role=true"),
        (required(on("role", "Exists")), ["kubeadm", "k3s"], "role"),
        (required(on("role", "DoesNotExist")), ["worker", "odd", "bare"], "!role"),
        (required(on("role", "In", "true")), ["k3s"], "role=true"),
        (required(on("role", "In", "true", "")), ["kubeadm", "k3s"], "role in (true,)"),
        (required(on("role", "NotIn", "true")), ["kubeadm", "worker", "odd", "bare"],
         "role notin (true)"),
        (required(on("cores", "Gt", "2")), ["k3s"], "cores > 2"),
        (required(on("cores", "Lt", "8")), ["worker"], "cores < 8"),
        (required(on("metadata.name", "In", "odd", of="matchFields")), ["odd"],
         "metadata.name=odd"),
        (required(on("role", "In", "true"), on("cores", "In", "2")), ["k3s", "worker"],
         "role=true or cores=2"),
        # Both must hold; a term without conditions selects nothing.
        ({"nodeSelector": {"cores": "8"}, **required(on("role", "Exists"))}, ["k3s"],
         "cores=8,role"),
        (required({}), [], ""),
    ],
)  # fmt: skip
def test_a_pod_runs_where_selector_and_affinity_let_it(
    spec: Object, selected: list[str], text: str
) -> None:
    placement = placement_of(spec)
    assert placement.matching(NODES) == sorted(selected)
    assert str(placement) == text


GUARD = "node-restriction.kubernetes.io/a"


@pytest.mark.parametrize(
    ("spec", "guarded"),
    [
        ({}, False),
        ({"nodeSelector": {GUARD: "b"}}, True),
        ({"nodeSelector": {"role": ""}}, False),
        (required(on(GUARD, "Exists")), True),
        (required(on(GUARD, "In", "b")), True),
        # A node that never got the label is selected.
        (required(on(GUARD, "NotIn", "b")), False),
        (required(on(GUARD, "DoesNotExist")), False),
        (required(on(GUARD, "Exists"), on("role", "Exists")), False),
        ({"nodeSelector": {GUARD: "b"}, **required(on("role", "Exists"))}, True),
    ],
)
def test_a_choice_is_guarded_if_no_node_can_choose_itself(spec: Object, guarded: bool) -> None:
    assert placement_of(spec).is_guarded() is guarded


def test_what_a_node_needs_and_what_chooses_it_are_named() -> None:
    placement = placement_of(
        {"nodeSelector": {"a": "b"}, **required(on("role", "Exists"), on("cores", "In", "8", "9"))}
    )
    assert placement.labels() == [("a", "b"), ("role", "")]
    assert placement.selecting() == ["a", "cores", "role"]
