"""One regression test for each bypass of the past."""

import pytest

from noderestrict.policy.rules.nodes import label_is_forbidden
from tests.builders import (
    assert_denied,
    create_mirror,
    judge,
    mirror_pod,
    node,
    obj,
    review,
    update_node,
)


def test_cve_2025_4563_a_mirror_pod_with_resource_claims_is_refused() -> None:
    pod = mirror_pod(resourceClaims=[{"name": "gpu", "resourceClaimName": "c"}])
    assert_denied(judge(create_mirror(pod)), "pods/mirror-references", "spec.resourceClaims[0]")


@pytest.mark.parametrize("sub", ["", "status"])
def test_cve_2025_5187_a_node_cannot_own_itself_away(sub: str) -> None:
    owned = node(metadata={"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "y"}]})
    assert_denied(judge(update_node(node(), owned, sub)), "nodes/owner-references")


@pytest.mark.parametrize("sub", ["ephemeralcontainers", "resize", "log", "tomorrow"])
def test_cve_2023_2727_a_subresource_that_nobody_matched_is_refused(sub: str) -> None:
    body = review("pods", "UPDATE", sub=sub, name="p1", namespace="ns", new=obj("pods"))
    assert_denied(judge(body), "pods/closed-world")


@pytest.mark.parametrize("field", ["containers", "initContainers", "ephemeralContainers"])
def test_cve_2024_3177_env_from_counts_in_every_container(field: str) -> None:
    pod = mirror_pod(**{field: [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]})
    assert_denied(judge(create_mirror(pod)), "pods/mirror-references", "envFrom[0]")


def test_cve_2023_34091_a_terminating_object_is_judged_like_any_other() -> None:
    terminating = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    old = node(metadata=terminating)
    new = node({"kubernetes.io/role": "master"}, metadata=terminating)
    assert_denied(judge(update_node(old, new)), "nodes/labels")


def test_cve_2025_46342_a_failed_lookup_is_never_allowed() -> None:
    body = review("pods", "DELETE", name="vanished", namespace="ns", old=obj("pods"))
    assert_denied(judge(body), "pods/delete-own", code=404)


def test_cve_2021_25735_the_existing_node_is_compared_not_the_sent_one() -> None:
    old = node({"node-restriction.kubernetes.io/tier": "low"})
    new = node({"node-restriction.kubernetes.io/tier": "high"})
    assert_denied(judge(update_node(old, new)), "nodes/labels", "changed to 'high'", "was 'low'")


@pytest.mark.parametrize(
    "key",
    [
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
        "node.kubernetes.io.kubernetes.io/x",
        "Kubernetes.io.k8s.io/x",
        "kubernetes.io/",
        "kubernetes.io/hostname/x",
        "xkubelet.kubernetes.io/y",
    ],
)
def test_cve_2023_5408_label_carve_outs_are_exact(key: str) -> None:
    assert label_is_forbidden(key)
