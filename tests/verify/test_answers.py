"""Who refused a request is read from what the API server answers."""

from typing import Any

import pytest

from noderestrict.cluster.connection import ClusterError
from noderestrict.probes.request import API, Request
from noderestrict.verify.answers import outcome_of

PODS = API("", "v1", "pods", "Pod")
EVICTION = API("", "v1", "pods", "Eviction", "eviction", "policy/v1")
TOKEN = API(
    "", "v1", "serviceaccounts", "TokenRequest", "token", "authentication.k8s.io/v1", dry_run=False
)
NODE = 'nodes "n1" is forbidden: '
WEBHOOK = 'admission webhook "nodes.noderestrict.io" denied the request: no'


def outcome(code: int, text: str, api: API = PODS, operation: str = "CREATE") -> Any:
    request = Request("system:node:n1", api, operation, "default", "p", {})
    error = ClusterError(f"{request.method} {request.path}: {code} {text}" if code else text, code)
    return outcome_of(request, error)


@pytest.mark.parametrize(
    ("code", "text", "by"),
    [
        (403, NODE + 'node "n1" is not allowed to modify taints', "NodeRestriction plugin"),
        (403, NODE + "is not allowed to modify labels: a", "NodeRestriction plugin"),
        (403, NODE + 'User "system:node:n1" cannot patch resource "nodes" in API group "" at the '
         "cluster scope", "authorizer"),
        (403, WEBHOOK, "noderestrict webhook"),
        (404, WEBHOOK, "noderestrict webhook"),
        (400, 'admission webhook "a.example.com" denied the request: no', "webhook a.example.com"),
        (422, NODE + "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed",
         "policy p"),
    ],
)  # fmt: skip
def test_who_refuses_is_named(code: int, text: str, by: str) -> None:
    found = outcome(code, text)
    assert (found.state, found.by) == ("refused", by)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "POST /api: Cannot connect"),
        (401, "Unauthorized"),
        (403, 'users "system:node:n1" is forbidden: User "me" cannot impersonate resource "users" '
         'in API group "" at the cluster scope'),
        (403, 'pods "p" is forbidden: violates PodSecurity "restricted:latest"'),
        (403, 'pods "p" is forbidden: a mirror pod may not reference secrets'),
        (404, 'pods "p" not found'),
        (422, 'Pod "p" is invalid: spec: Required value'),
        (400, 'admission webhook "a.example.com" does not support dry run'),
        (429, "Too many requests, please try again later."),
        (500, 'failed calling webhook "nodes.noderestrict.io": connection refused'),
        (500, WEBHOOK),
        # Only for a CREATE does this come after admission.
        (409, 'the object has been modified'),
    ],
)  # fmt: skip
def test_what_says_nothing_about_a_rule_is_not_told(code: int, text: str) -> None:
    found = outcome(code, text)
    assert (found.state, found.by) == ("unknown", "")
    assert found.message


@pytest.mark.parametrize(
    ("code", "text", "api"),
    [
        (409, 'pods "p" already exists', PODS),
        (400, 'cannot bind token for serviceaccount "a" to pod running with different '
         "serviceaccount name.", TOKEN),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.", EVICTION),
    ],
)  # fmt: skip
def test_what_comes_after_admission_means_that_the_request_passed(
    code: int, text: str, api: API
) -> None:
    assert outcome(code, text, api).state == "passed"


def test_an_update_that_conflicts_is_not_told() -> None:
    assert outcome(409, 'pods "p" already exists', operation="UPDATE").state == "unknown"


@pytest.mark.parametrize(
    "words",
    ["users cannot impersonate", "ValidatingAdmissionPolicy 'p'", 'User "x" cannot get resource a',
     'failed calling webhook "b"', "pods already exists"],
)  # fmt: skip
def test_a_webhooks_words_are_its_own(words: str) -> None:
    found = outcome(403, f'admission webhook "a.example.com" denied the request: {words}')
    assert (found.state, found.by) == ("refused", "webhook a.example.com")
