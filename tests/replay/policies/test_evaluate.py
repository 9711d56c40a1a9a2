"""Policies judge a request as the API server that sent the review does."""

import gc
import sys
from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict.replay.policies import cel
from noderestrict.replay.policies.documents import PolicyError, convert
from noderestrict.replay.policies.evaluate import Judgement, Policies

Object = dict[str, Any]
API = "admissionregistration.k8s.io/v1"
NODES = {
    "apiGroups": [""],
    "apiVersions": ["*"],
    "operations": ["*"],
    "resources": ["nodes", "nodes/status"],
}


def policy(*expressions: str, name: str = "p", **spec: Any) -> Object:
    """A policy on nodes whose validations are expressions."""
    return {
        "apiVersion": API,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [NODES]},
            "validations": [{"expression": one} for one in expressions],
            **spec,
        },
    }


def binding(policy: str = "p", name: str = "b", **spec: Any) -> Object:
    return {
        "apiVersion": API,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": policy, "validationActions": ["Deny"], **spec},
    }


def request(**changes: Any) -> Object:
    """A node's update of itself."""
    return {
        "uid": "1",
        "kind": {"group": "", "version": "v1", "kind": "Node"},
        "resource": {"group": "", "version": "v1", "resource": "nodes"},
        "name": "n1",
        "operation": "UPDATE",
        "userInfo": {"username": "system:node:n1", "groups": ["system:nodes"]},
        "object": {"metadata": {"name": "n1", "labels": {"a": "b"}}, "spec": {"taints": None}},
        "oldObject": {"metadata": {"name": "n1"}, "spec": {}},
        **changes,
    }


def judged(*objects: Object, **changes: Any) -> Judgement:
    return Policies(convert(objects)).judge(request(**changes))


def refused(expression: str, *, variables: Mapping[str, str] | None = None, **changes: Any) -> bool:
    """Return whether a policy of one expression refuses a request."""
    listed = [{"name": name, "expression": text} for name, text in (variables or {}).items()]
    judgement = judged(policy(expression, variables=listed), binding(), **changes)
    assert judgement.allowed is not None
    assert not any(one.is_error for one in judgement.objections), judgement.objections
    return not judgement.allowed


@pytest.mark.parametrize(
    "expression",
    [
        "oldObject == null && !has(oldObject.metadata)",
        "!oldObject.?metadata.hasValue()",
        "oldObject.?metadata.?labels.?a.orValue('none') == 'none'",
        "oldObject.?metadata.labels.a.orValue('none') == 'none'",
        "oldObject[?'metadata'].orValue({}) == {}",
        "object.metadata.?name.?length.orValue(7) == 7",
        "[1, 2].all(n, !has(dyn(n).x))",
        "[optional.of(dyn(null))].all(o, !o.?x.hasValue())",
    ],
)
def test_a_test_for_presence_finds_nothing_in_what_has_no_fields(expression: str) -> None:
    assert not refused(expression, operation="CREATE", oldObject=None)


def test_an_error_in_a_validation_refuses_unless_the_failure_policy_ignores_it() -> None:
    expression = "object.spec.nothing == 1"
    judgement = judged(policy(expression), binding())
    assert judgement.allowed is False
    assert judgement.objections[0].is_error
    assert "nothing" in judgement.objections[0].message
    assert judged(policy(expression, failurePolicy="Ignore"), binding()).allowed


def test_a_policy_without_a_binding_does_nothing() -> None:
    policies = Policies(convert([policy("false")]))
    assert policies.judge(request()).allowed
    assert policies.unbound == ("p",)


def test_the_reason_of_a_validation_gives_the_code() -> None:
    validation = {"expression": "false", "message": "no", "reason": "Forbidden"}
    denial = judged(policy(validations=[validation]), binding()).denial
    assert denial is not None
    assert (denial.code, denial.reason) == (403, "Forbidden")
    assert str(denial) == ("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no")
    denial = judged(policy("false"), binding()).denial
    assert denial is not None
    assert (denial.code, denial.message) == (422, "failed expression: false")


def test_match_conditions_that_are_false_skip_the_policy() -> None:
    conditions = [
        {"name": "fails", "expression": "object.nothing == 1"},
        {"name": "false", "expression": "request.userInfo.username == 'system:node:n2'"},
    ]
    assert judged(policy("false", matchConditions=conditions), binding()).allowed
    failing = judged(policy("true", matchConditions=conditions[:1]), binding())
    assert failing.allowed is False
    ignored = policy("false", matchConditions=conditions[:1], failurePolicy="Ignore")
    assert judged(ignored, binding()).allowed


def test_variables_are_evaluated_only_where_they_are_needed() -> None:
    variables = {"fails": "object.nothing.at.all", "node": "request.userInfo.username"}
    assert not refused("true || variables.fails == 1", variables=variables)
    assert not refused("variables.node == 'system:node:n1'", variables=variables)


@pytest.mark.parametrize("first", ["'xxxxxxxxxx'", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"])
def test_variables_that_would_fill_the_memory_are_not_judged(first: str) -> None:
    variables = [{"name": "v0", "expression": first}]
    for n in range(9):
        joined = "+".join([f"variables.v{n}"] * 10)
        variables.append({"name": f"v{n + 1}", "expression": joined})
    judgement = judged(policy("variables.v9.size() > 0", variables=variables), binding())
    assert judgement.allowed is None
    assert "it may cost more than an API server allows: variables.v" in judgement.unknown[0]


def test_variables_can_hold_what_has_no_json() -> None:
    variables = {
        "labels": "object.metadata.?labels",
        "since": "timestamp('2026-01-01T00:00:00Z')",
        "kind": "type(object)",
    }
    assert not refused("variables.labels.hasValue()", variables=variables)
    assert not refused("variables.labels.orValue({}).?a.orValue('') == 'b'", variables=variables)
    # As in an API server: a path does not lead through an optional value that it has not made.
    assert not refused("variables.labels.?a.orValue('none') == 'none'", variables=variables)
    assert not refused("variables.since.getFullYear() == 2026", variables=variables)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("request.subresource == ''", "line 1, column 8: undefined field 'subresource'"),
        ("variables.x", "line 1, column 10: undefined field 'x'"),
        ("object.x", "must evaluate to bool but got dyn: object.x"),
        ("1 +", "line 1, column 4: Syntax error"),
        ("true &&\n  foo", "line 2, column 3: undeclared reference to 'foo'"),
        ("request.name == 1", "line 1, column 14: found no matching overload"),
    ],
)
def test_what_an_api_server_would_not_compile_is_refused_with_its_place(
    expression: str, problem: str
) -> None:
    with pytest.raises(PolicyError) as error:
        Policies(convert([policy(expression)]))
    text = str(error.value)
    assert text.startswith("ValidatingAdmissionPolicy p: spec.validations[0].expression: ")
    assert problem in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("authorizer.path('/x').check('get').allowed()", "the authorizer is not asked"),
        ("namespaceObject.metadata.name == 'x'", "the namespace is not known"),
    ],
)
def test_what_only_an_api_server_knows_is_said(expression: str, why: str) -> None:
    judgement = judged(policy(expression), binding())
    assert judgement.allowed is None
    assert judgement.unknown == (f"p: {why}",)


def test_a_denial_stands_whatever_is_unknown() -> None:
    judgement = judged(policy("authorizer.path('/x').check('get').allowed()", "false"), binding())
    assert judgement.allowed is False


def test_null_values_cost_python_no_references() -> None:
    spec: Object = {"variables": [{"name": "nothing", "expression": "dyn([null, null])"}]}
    policies = Policies(convert([policy("variables.nothing[0] == null", **spec), binding()]))

    def references_after(rounds: int) -> int:
        for _ in range(rounds):
            assert policies.judge(request()).allowed
        # What others leave for the collector holds None, too.
        gc.collect()
        return sys.getrefcount(None)

    before = references_after(1)
    assert references_after(1000) > before - 500


def test_bindings_say_what_becomes_of_an_objection() -> None:
    warn = binding(name="warn", validationActions=["Warn", "Audit"])
    judgement = judged(policy("false"), warn)
    assert judgement.allowed
    assert judgement.warnings == (
        "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'warn': "
        "failed expression: false",
    )
    both = judged(policy("false"), warn, binding())
    assert both.allowed is False
    assert [one.binding for one in both.objections] == ["warn", "b"]


@pytest.mark.parametrize(
    ("expression", "message", "shown"),
    [
        ("'x: ' + request.name", "", "x: n1"),
        ("'  x  '", "", "x"),
        ("object.nothing + ''", "the message", "the message"),
        ("object.nothing + ''", "", "failed expression: false"),
        ("''", "the message", "the message"),
        ("'two\\nlines'", "the message", "the message"),
        ("'x'.replace('x', 'y'.replace('y', request.name))", "", "n1"),
    ],
)
def test_a_message_without_a_value_falls_back(expression: str, message: str, shown: str) -> None:
    validation = {"expression": "false", "messageExpression": expression}
    if message:
        validation["message"] = message
    denial = judged(policy(validations=[validation]), binding()).denial
    assert denial is not None
    assert denial.message == shown


def test_a_message_may_be_5_kib_long() -> None:
    def shown(length: int) -> str:
        validation = {"expression": "false", "messageExpression": "object.metadata.text + ''"}
        changed = {"metadata": {"text": "é" * length}}
        denial = judged(policy(validations=[validation]), binding(), object=changed).denial
        assert denial is not None
        return denial.message

    assert shown(2560) == "é" * 2560
    assert shown(2561) == "failed expression: false"


def test_audit_annotations_have_texts_or_nothing() -> None:
    annotations = [
        {"key": "rule", "valueExpression": "' nodes/labels '"},
        {"key": "empty", "valueExpression": "''"},
        {"key": "null", "valueExpression": "null"},
        {"key": "long", "valueExpression": "object.metadata.text + ''"},
    ]
    changed = {"metadata": {"text": "é" * 6000}}
    judgement = judged(policy("false", auditAnnotations=annotations), binding(), object=changed)
    assert judgement.annotations == {"p/rule": "nodes/labels", "p/long": "é" * 5120}


def test_an_error_in_an_audit_annotation_denies_whatever_the_actions_are() -> None:
    annotations = [{"key": "k", "valueExpression": "object.nothing + ''"}]
    audit = binding(validationActions=["Audit"])
    assert judged(policy("true", auditAnnotations=annotations), audit).allowed is False
    ignored = policy("true", auditAnnotations=annotations, failurePolicy="Ignore")
    assert judged(ignored, audit).allowed


def test_two_bindings_do_not_repeat_an_annotation() -> None:
    annotations = [{"key": "k", "valueExpression": "'v'"}]
    spec = policy("true", auditAnnotations=annotations)
    assert judged(spec, binding(), binding(name="c")).annotations == {"p/k": "v"}


def test_parameters_are_not_evaluated() -> None:
    spec = policy("params.x == 1", paramKind={"apiVersion": "v1", "kind": "ConfigMap"})
    bound = binding(paramRef={"name": "x"})
    judgement = judged(spec, bound)
    assert judgement.allowed is None
    assert judgement.unknown == ("p: parameters are not evaluated",)
    elsewhere = {"group": "", "version": "v1", "resource": "pods"}
    assert judged(spec, bound, resource=elsewhere).allowed


def test_match_conditions_know_no_variables() -> None:
    spec = policy(
        "true",
        variables=[{"name": "x", "expression": "true"}],
        matchConditions=[{"name": "x", "expression": "variables.x"}],
    )
    with pytest.raises(PolicyError, match=r"matchConditions\[0\]\.expression: .*undefined field"):
        Policies(convert([spec]))


def test_a_binding_narrows_its_policy() -> None:
    updates = {"resourceRules": [{**NODES, "operations": ["UPDATE"]}]}
    bound = binding(matchResources=updates)
    assert judged(policy("false"), bound).allowed is False
    assert judged(policy("false"), bound, operation="CREATE").allowed
    named = binding(matchResources={"namespaceSelector": {"matchLabels": {"a": "b"}}})
    pods = {"resourceRules": [{**NODES, "resources": ["*"]}]}
    leases = {"group": "coordination.k8s.io", "version": "v1", "resource": "leases"}
    everywhere = policy("false", matchConstraints={"resourceRules": [
        {**NODES, "apiGroups": ["*"], "resources": ["*"]}
    ]})  # fmt: skip
    assert judged(policy("false", matchConstraints=pods), named).allowed is False
    unknown = judged(everywhere, named, resource=leases, namespace="ns")
    assert unknown.allowed is None
    assert unknown.unknown == ("p: the labels of the namespace are not known",)


def test_null_is_what_is_not_there() -> None:
    assert not refused("!has(object.spec.taints)")
    labels = {"metadata": {"labels": {"a": None, "b": "c"}}}
    assert not refused("object.metadata.labels == {'a': '', 'b': 'c'}", object=labels)
    assert not refused("object.list == [dyn(null), dyn(1)]", object={"list": [None, 1]})


def test_what_is_empty_in_a_request_is_not_there() -> None:
    empty: Object = {"subResource": "", "namespace": "", "userInfo": {"groups": [], "extra": None}}
    absent = "!has(request.subResource) && !has(request.namespace)"
    assert not refused(
        f"{absent} && !has(request.userInfo.groups) && !has(request.userInfo.extra)", **empty
    )
    assert judged(policy("request.namespace == ''"), binding(), **empty).allowed is False
    assert not refused("request.requestKind == request.kind && !request.dryRun")


def test_numbers_that_go_does_not_have_become_doubles() -> None:
    assert not refused("object.n > 9223372036854775807", object={"n": 1 << 70})
    assert not refused("object.n == 9223372036854775807", object={"n": (1 << 63) - 1})


def test_objects_nested_too_deeply_are_not_judged() -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert judged(policy("true"), binding(), object=deep).allowed is None


@pytest.mark.parametrize(
    "metadata",
    [{"annotations": {"a": "b\0c"}}, {"annotations": {"b\0c": "a"}}, {"finalizers": ["a", "b\0c"]}],
)
def test_texts_that_the_library_cuts_off_are_not_judged(metadata: Object) -> None:
    judgement = judged(policy("true"), binding(), object={"metadata": metadata})
    assert judgement.unknown == ("the CEL library ends texts at a NUL character",)


def test_text_that_is_no_unicode_is_not_judged() -> None:
    judgement = judged(
        policy("object.metadata.name == 'x'"), binding(), object={"metadata": {"name": "\ud800"}}
    )
    assert judgement.allowed is not True


def test_a_missing_library_is_named_with_the_extra_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    cel._library.cache_clear()
    try:
        with pytest.raises(
            cel.MissingLibraryError, match=r"pip install 'noderestrict\[policies\]'"
        ):
            Policies(convert([policy("true")]))
    finally:
        cel._library.cache_clear()
