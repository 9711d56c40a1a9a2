"""The token requests that are left out: of named accounts, bound to a pod, and no others."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from noderestrict.policy.extra import Extra
from noderestrict.render.conditions import SYNTAXES
from noderestrict.render.infrastructure import (
    AUDIENCES,
    NAME,
    SECONDS,
    Infrastructure,
    infrastructure_in,
    infrastructure_of,
)
from noderestrict.render.manifests import Options
from noderestrict.render.registration import parse_registration, webhook_configuration

cel = pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")
ext_optional = pytest.importorskip("cel_expr_python.ext.ext_optional")

Object = dict[str, Any]
GIVEN = Infrastructure(("kube-system/kube-proxy", "cni/agent"), ("a", "b"))
VARIABLES = dict.fromkeys(("request", "object", "oldObject"), cel.Type.DYN)
REQUEST: Object = {
    "operation": "CREATE",
    "resource": {"group": "", "version": "v1", "resource": "serviceaccounts"},
    "subResource": "token",
    "namespace": "kube-system",
    "name": "kube-proxy",
    "object": {
        "spec": {
            "audiences": ["a"],
            "expirationSeconds": SECONDS,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"},
        }
    },
}


def is_asked(request: Object) -> bool:
    """Return what the condition says; raises for what the API server fails."""
    fields = {key: value for key, value in request.items() if key != "object"}
    fields["userInfo"] = {"username": "system:node:n1", "groups": ["system:nodes"]}
    data = {"request": fields, "object": request.get("object"), "oldObject": None}
    found = set()
    for syntax in SYNTAXES:
        environment = cel.NewEnv(variables=VARIABLES, extensions=[ext_optional.ExtOptional()])
        value = environment.compile(GIVEN.condition(syntax)["expression"]).eval(data=data)
        assert value.type() == cel.Type.BOOL, value
        found.add(value.value())
    (asked,) = found
    return bool(asked)


def changed(*path: str, to: Any) -> Object:
    """Return the request with one field changed; without it for None."""
    request = copy.deepcopy(REQUEST)
    *steps, last = path
    place = request
    for step in steps:
        place = place[step]
    if to is None:
        del place[last]
    else:
        place[last] = to
    return request


BOUND = ("object", "spec", "boundObjectRef")


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        changed("object", "spec", "audiences", to=["b", "a"]),
        changed("object", "spec", "expirationSeconds", to=600),
        {**REQUEST, "namespace": "cni", "name": "agent"},
    ],
)
def test_what_a_kubelet_asks_for_such_a_pod_is_left_out(request_: Object) -> None:
    assert not is_asked(request_)


@pytest.mark.parametrize(
    "request_",
    [
        {**REQUEST, "name": "other"},
        {**REQUEST, "namespace": "default"},
        {**REQUEST, "namespace": "cni"},
        {**REQUEST, "namespace": "kube-system/kube-proxy", "name": ""},
        {**REQUEST, "operation": "UPDATE"},
        {**REQUEST, "subResource": ""},
        changed("subResource", to=None),
        changed("name", to=None),
        changed("namespace", to=None),
        changed("object", to=None),
        changed("object", "spec", to=None),
        changed("object", "spec", "audiences", to=None),
        changed("object", "spec", "audiences", to=[]),
        changed("object", "spec", "audiences", to=["vault"]),
        changed("object", "spec", "audiences", to=["a", "vault"]),
        changed("object", "spec", "expirationSeconds", to=None),
        changed("object", "spec", "expirationSeconds", to=SECONDS + 1),
        changed(*BOUND, to=None),
        *(changed(*BOUND, field, to=None) for field in ("apiVersion", "kind", "name", "uid")),
        *(changed(*BOUND, field, to="") for field in ("apiVersion", "kind", "name", "uid")),
        changed(*BOUND, "kind", to="Node"),
        changed(*BOUND, "kind", to="Secret"),
    ],
)
def test_every_other_request_is_asked_about(request_: Object) -> None:
    assert is_asked(request_)


def test_only_registrations_of_a_service_leave_any_out_and_only_about_tokens() -> None:
    for webhook in webhook_configuration({}, infrastructure=GIVEN)["webhooks"]:
        names = {one["name"] for one in webhook["matchConditions"]}
        assert (NAME in names) is (webhook["name"] == "tokens.noderestrict.io")
    assert Options().service().infrastructure == Infrastructure(
        ("kube-system/kube-proxy",), AUDIENCES
    )
    assert Options(infrastructure=()).service().infrastructure is None
    given = Options(api_audiences=("eks",)).service().infrastructure
    assert given is not None
    assert given.audiences == ("eks",)


def test_a_condition_is_read_back_only_as_it_was_rendered() -> None:
    for syntax in SYNTAXES:
        expression = GIVEN.condition(syntax)["expression"]
        assert infrastructure_of(expression) == GIVEN
        for wrong in (expression.replace("<=", ">="), f"{expression} || true", "", "true in ['a']"):
            assert infrastructure_of(wrong) is None
    webhooks = webhook_configuration({}, infrastructure=GIVEN)["webhooks"]
    assert infrastructure_in(webhooks) == GIVEN
    assert infrastructure_in(webhook_configuration({})["webhooks"]) is None


def test_servers_are_told_what_is_left_out() -> None:
    registration = Options().service()
    flag = registration.flag().partition("=")[2]
    assert parse_registration(flag) == registration
    assert parse_registration(flag).value(Extra()) == registration.value(Extra())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Infrastructure(("kube-proxy",)), "'kube-proxy' is not NAMESPACE/NAME"),
        (lambda: Infrastructure(("a/b/c",)), "is not NAMESPACE/NAME"),
        (lambda: Infrastructure(("a/b'] || true",)), "is not NAMESPACE/NAME"),
        (lambda: Infrastructure(("a/b",), ("x' || '",)), "no condition can hold"),
        (lambda: Infrastructure(("a/b",), ("x\\",)), "no condition can hold"),
        (lambda: Infrastructure(()), "cannot be empty"),
        (lambda: Infrastructure(("a/b",), ()), "cannot be empty"),
        (
            lambda: parse_registration(
                '{"clientConfig":{"url":"https://a"},"infrastructure":{"accounts":["a"],'
                '"audiences":["b"]}}'
            ),
            "'a' is not NAMESPACE/NAME",
        ),
    ],
)
def test_what_no_condition_can_hold_is_refused(change: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change()
