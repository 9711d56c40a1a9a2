"""What the authorizer thinks of an agent's read, by itself and by what the agent's node reaches."""

import json
from typing import Any

import pytest

from noderestrict import authorization
from noderestrict.agents.reads import Asked, Reach
from noderestrict.graph.rules import Access, Opinion
from tests.agents.builders import ACCOUNT, LISTERS, OF_N1, reading

REFERENCED = "{resources: [secrets, serviceaccounts], verbs: [get], relation: referenced}"
OWN_NODE = "{resources: [nodes], verbs: [get], relation: own-node}"
LEFT_TO_RBAC = Opinion(allowed=False)


def asked(entry: str, resource: str, name: str, **spec: Any) -> Asked:
    """Return what an agent with one entry for reads requests."""
    attributes = {"verb": "get", "resource": resource, "namespace": "ns", "name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": ACCOUNT, "extra": OF_N1, "resourceAttributes": attributes, **spec},
    }
    found = authorization.decode(json.dumps(review).encode(), reading(entry)).asked
    assert found is not None
    return found


def test_what_an_agent_may_read_is_left_to_rbac() -> None:
    assert authorization.evaluate_agent(asked(OWN_NODE, "nodes", "n1"), LISTERS) == LEFT_TO_RBAC


def test_what_it_may_not_read_is_denied_whatever_rbac_says() -> None:
    opinion = authorization.evaluate_agent(asked(OWN_NODE, "nodes", "n2"), LISTERS)
    assert isinstance(opinion, Opinion)
    assert (opinion.allowed, opinion.denied) == (False, True)
    assert opinion.rule == "agents/driver/read"
    assert "may get only its own Node" in opinion.reason


@pytest.mark.parametrize(
    ("resource", "verb", "sub_resource"),
    [("secrets", "get", ""), ("serviceaccounts", "create", "token")],
)
def test_what_is_referenced_is_decided_by_what_the_node_may_get(
    resource: str, verb: str, sub_resource: str
) -> None:
    request = asked(REFERENCED, resource, "a")
    reach = authorization.evaluate_agent(request, LISTERS)
    assert isinstance(reach, Reach)
    access = Access("n1", verb, "", resource, sub_resource, "ns", "a")
    review = authorization.reach_review(request, reach)
    assert review == authorization.Review("authorization.k8s.io/v1", "n1", access)
    assert authorization.reached(Opinion(allowed=True), reach) == LEFT_TO_RBAC
    refused = authorization.reached(Opinion(allowed=False, reason="no path"), reach)
    assert (refused.denied, refused.rule) == (True, "agents/driver/read")
    assert "what a pod on its own node refers to" in refused.reason
