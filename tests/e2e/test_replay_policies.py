"""``replay --policies`` refuses what an API server refuses, with the same code and message."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict.replay.policies.documents import convert
from noderestrict.replay.policies.evaluate import Policies
from tests.e2e.conftest import namespace_ready
from tests.e2e.control_plane import Client, ControlPlane

pytestmark = pytest.mark.e2e

Object = dict[str, Any]
API = "admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
CONFIG_MAPS = {
    "apiGroups": [""],
    "apiVersions": ["*"],
    "operations": ["CREATE"],
    "resources": ["configmaps"],
}
#: What stands between the message of a policy and the error of a library.
_ERROR = "resulted in error"


def named(name: str, validation: Object, **spec: Any) -> list[Object]:
    """A policy on ConfigMaps of its name, and its binding."""
    binding = spec.pop("binding", {})
    constraints = {"resourceRules": [CONFIG_MAPS], **spec.pop("constraints", {})}
    mine = {"name": "mine", "expression": f"object.metadata.name == '{name}'"}
    return [
        {
            "apiVersion": API,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": constraints,
                "matchConditions": [mine, *spec.pop("conditions", [])],
                "validations": [validation],
                **spec,
            },
        },
        {
            "apiVersion": API,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"], **binding},
        },
    ]


FALSE = {"expression": "false"}
FAILS = "object.data.nothing == ''"
#: By the name of the ConfigMap.
CASES: dict[str, list[Object]] = {
    "plain": named("plain", {"expression": "1 ==\n 2"}),
    "message": named("message", {**FALSE, "message": " one line "}),
    "expression": named(
        "expression", {**FALSE, "messageExpression": "'for ' + request.userInfo.username"}
    ),
    "broken-message": named(
        "broken-message", {**FALSE, "message": "m", "messageExpression": f"string({FAILS})"}
    ),
    "two-lines": named("two-lines", {**FALSE, "messageExpression": "'a\\nb'"}),
    "blank": named("blank", {**FALSE, "message": "m", "messageExpression": "' '"}),
    "long": named("long", {**FALSE, "messageExpression": "object.data.long + ''"}),
    "forbidden": named("forbidden", {**FALSE, "reason": "Forbidden"}),
    "too-large": named("too-large", {**FALSE, "reason": "RequestEntityTooLarge"}),
    "error": named("error", {"expression": FAILS, "reason": "Forbidden"}),
    "error-ignored": named("error-ignored", {"expression": FAILS}, failurePolicy="Ignore"),
    "condition-false": named(
        "condition-false",
        FALSE,
        conditions=[
            {"name": "a", "expression": FAILS},
            {"name": "b", "expression": "false"},
        ],
    ),
    "condition-fails": named(
        "condition-fails", FALSE, conditions=[{"name": "a", "expression": FAILS}]
    ),
    "condition-ignored": named(
        "condition-ignored",
        FALSE,
        conditions=[{"name": "a", "expression": FAILS}],
        failurePolicy="Ignore",
    ),
    "annotation-fails": named(
        "annotation-fails",
        {"expression": "true"},
        auditAnnotations=[{"key": "k", "valueExpression": f"string({FAILS})"}],
        binding={"validationActions": ["Audit"]},
    ),
    "warns": named("warns", FALSE, binding={"validationActions": ["Warn", "Audit"]}),
    "no-old-object": named(
        "no-old-object",
        {
            "expression": "oldObject == null && !has(oldObject.data) && "
            "oldObject.?data.a.orValue('none') == 'none' && !oldObject[?'data'].hasValue()"
        },
    ),
    "request": named(
        "request",
        {
            "expression": "!has(request.subResource) && request.namespace == 'default' && "
            "request.requestKind == request.kind && request.dryRun && has(request.options) && "
            "request.resource.resource == 'configmaps' && request.userInfo.groups.size() > 0"
        },
    ),
    "empty-fields": named(
        "empty-fields",
        {
            "expression": "!has(object.binaryData) && !has(object.immutable) && "
            "!has(object.metadata.labels) && has(object.data) && object.kind == 'ConfigMap'"
        },
    ),
    "lazy": named(
        "lazy",
        {"expression": "true || variables.fails"},
        variables=[{"name": "fails", "expression": FAILS}],
    ),
    "variable-fails": named(
        "variable-fails",
        {"expression": "variables.fails"},
        variables=[{"name": "fails", "expression": FAILS}],
    ),
    "optional-variable": named(
        "optional-variable",
        {"expression": "variables.data.?a.orValue('none') == 'none' && !has(variables.data.a)"},
        variables=[{"name": "data", "expression": "object.?data"}],
    ),
    "excluded": named("excluded", FALSE, constraints={"excludeResourceRules": [CONFIG_MAPS]}),
    "other-name": named(
        "other-name",
        FALSE,
        constraints={"resourceRules": [{**CONFIG_MAPS, "resourceNames": ["x"]}]},
    ),
    "cluster-scope": named(
        "cluster-scope", FALSE, constraints={"resourceRules": [{**CONFIG_MAPS, "scope": "Cluster"}]}
    ),
    "not-selected": named(
        "not-selected", FALSE, constraints={"objectSelector": {"matchLabels": {"a": "b"}}}
    ),
    "other-namespace": named(
        "other-namespace",
        FALSE,
        binding={
            "matchResources": {
                "namespaceSelector": {
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "NotIn",
                            "values": ["default"],
                        }
                    ]
                }
            }
        },
    ),
    "narrowed": named(
        "narrowed",
        FALSE,
        binding={"matchResources": {"resourceRules": [{**CONFIG_MAPS, "operations": ["UPDATE"]}]}},
    ),
}
POLICIES = Policies(convert([one for case in CASES.values() for one in case]))


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Iterator[Client]:
    """Who creates ConfigMaps once all policies are in force."""
    client = control_plane.admin
    namespace_ready(client)
    paths = {
        "ValidatingAdmissionPolicy": f"/apis/{API}/validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding": f"/apis/{API}/validatingadmissionpolicybindings",
    }
    last = named("last", FALSE)
    for value in [*(one for case in CASES.values() for one in case), *last]:
        client.create(paths[value["kind"]], value)
    deadline = time.monotonic() + 60
    while created(client, config_map("last"))[0] == 201:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(2)
    yield client
    for name in (*CASES, "last"):
        for path in paths.values():
            client.delete(f"{path}/{name}")


def config_map(name: str) -> Object:
    data = {"a": "b", "long": "x" * 6000}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def created(client: Client, value: Object) -> tuple[int, Object]:
    code, answer = client.send("POST", f"{MAPS}?dryRun=All", json.dumps(value).encode())
    return code, json.loads(answer)


@pytest.mark.parametrize("name", CASES)
def test_an_api_server_says_the_same(name: str, admin: Client) -> None:
    value = config_map(name)
    code, answer = created(admin, value)
    request = {
        "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
        "resource": {"group": "", "version": "v1", "resource": "configmaps"},
        "name": name,
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "object": value,
        "dryRun": True,
    }
    judgement = POLICIES.judge(request)
    denial = judgement.denial
    if denial is None:
        assert judgement.allowed
        assert code == 201, answer
        return
    assert (code, answer.get("reason")) == (denial.code, denial.reason)
    ours, theirs = str(denial), answer["message"].partition("is forbidden: ")[2]
    if denial.is_error:
        ours, theirs = (text.partition(_ERROR)[0] for text in (ours, theirs))
    assert theirs == ours
