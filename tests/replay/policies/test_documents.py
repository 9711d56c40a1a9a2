"""Files with policies are read whole, or refused with what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.replay.policies.documents import PolicyError, convert, read
from tests.replay.policies.test_evaluate import binding, policy

Object = dict[str, Any]


def written(path: Path, *objects: Object) -> str:
    path.write_text("---\n".join(yaml.safe_dump(one) for one in objects))
    return str(path)


def refusal(*objects: Object) -> str:
    with pytest.raises(PolicyError) as error:
        convert(objects)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_folder_is_read_with_the_folders_in_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    written(tmp_path / "a.yaml", policy("true"), policy("true", name="q"))
    written(tmp_path / "deep" / "b.yml", binding())
    (tmp_path / "c.json").write_text(json.dumps(binding("q", name="c")))
    (tmp_path / "README.md").write_text("not read")
    kustomization = {"kind": "Kustomization", "resources": ["a.yaml"]}
    written(tmp_path / "kustomization.yaml", kustomization)
    found = read([str(tmp_path)])
    assert list(found.policies) == ["p", "q"]
    assert sorted(found.bindings) == ["b", "c"]


@pytest.mark.parametrize("kind", [[], {}, 5, None])
def test_a_kind_that_is_no_text_is_told_with_its_file(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"kind": kind}))
    with pytest.raises(PolicyError, match=r"a.json: kind .* is no ValidatingAdmissionPolicy"):
        read([str(tmp_path / "a.json")])


def test_a_list_gives_its_items(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"kind": "List", "items": [policy("true"), binding()]}))
    assert list(read([str(path)]).bindings) == ["b"]
    typed = policy("true")
    del typed["kind"], typed["apiVersion"]
    path.write_text(json.dumps({"kind": "ValidatingAdmissionPolicyList", "items": [typed]}))
    assert list(read([str(path)]).policies) == ["p"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"matchCondition": []}, "unknown field `matchCondition`"),
        ({"failurePolicy": "fail"}, "spec.failurePolicy: fail: "),
        ({"validations": None}, "spec: it has no validations and no auditAnnotations"),
        ({"validations": {"expression": "true"}}, "spec.validations: expected `array"),
        ({"validations": [{"message": "x"}]}, "spec.validations[0]: object missing required"),
        (
            {"validations": [{"expression": "true", "reason": "Unauthorized"}]},
            "spec.validations[0].reason: Unauthorized: ",
        ),
        (
            {"validations": [{"expression": "true", "message": "a\nb"}]},
            "spec.validations[0].message: 'a\\nb' has more than one line",
        ),
        (
            {"validations": [{"expression": "true", "message": " "}]},
            "spec.validations[0].message: ' ' is blank",
        ),
        ({"validations": [{"expression": 1}]}, "spec.validations[0].expression: 1: expected `str`"),
        ({"matchConstraints": {}}, "spec.matchConstraints.resourceRules: at least one is needed"),
        (
            {"variables": [{"name": "a-b", "expression": "1"}]},
            "spec.variables[0].name: a-b is no name",
        ),
        (
            {"variables": [{"name": "in", "expression": "1"}]},
            "spec.variables[0].name: in is no name",
        ),
        (
            {"variables": [{"name": "a", "expression": "1"}] * 2},
            "spec.variables[1].name: a is there twice",
        ),
        (
            {"matchConditions": [{"name": str(n), "expression": "true"} for n in range(65)]},
            "spec.matchConditions: 65 are more than 64",
        ),
    ],
)
def test_a_policy_that_an_api_server_would_refuse_is_refused(spec: Object, problem: str) -> None:
    text = refusal(policy("true", **spec))
    assert text.startswith("ValidatingAdmissionPolicy p: ")
    assert problem in text


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"operations": ["PATCH"]}, "operations[0]: PATCH: "),
        ({"operations": ["*", "CREATE"]}, "operations: ['*', 'CREATE']: * means all"),
        ({"apiVersions": []}, "apiVersions: []: a value is missing"),
        ({"apiVersions": [""]}, "apiVersions: ['']: a value is missing"),
        ({"resources": []}, "resources: []: a value is missing"),
        ({"scope": "Node"}, "scope: Node: "),
        ({"resource": ["pods"]}, "unknown field `resource`"),
    ],
)
def test_a_rule_that_an_api_server_would_refuse_is_refused(rule: Object, problem: str) -> None:
    whole = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["*"],
        "resources": ["pods"],
        **rule,
    }
    text = refusal(policy("true", matchConstraints={"resourceRules": [whole]}))
    assert "spec.matchConstraints.resourceRules[0]" in text
    assert problem in text


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"policyName": ""}, "spec.policyName: it is empty"),
        ({"policyName": "q"}, "spec.policyName: no ValidatingAdmissionPolicy q given"),
        ({"validationActions": []}, "spec.validationActions: []: at least one is needed"),
        ({"validationActions": ["Deny", "Warn"]}, "Deny and Warn exclude each other"),
        ({"validationActions": ["Warn", "Warn"]}, "one is there twice"),
        ({"validationActions": ["deny"]}, "spec.validationActions[0]: deny: "),
    ],
)
def test_a_binding_that_an_api_server_would_refuse_is_refused(spec: Object, problem: str) -> None:
    text = refusal(policy("true"), binding(**spec))
    assert text.startswith("ValidatingAdmissionPolicyBinding b: ")
    assert problem in text


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "a list is no ValidatingAdmissionPolicy and no ValidatingAdmissionPolicyBinding"),
        ({}, "kind None is no ValidatingAdmissionPolicy"),
        ({"kind": "Pod"}, "kind Pod is no ValidatingAdmissionPolicy"),
        ({"kind": {"a": 1}}, "is no ValidatingAdmissionPolicy"),
        (
            {**policy("true"), "apiVersion": "admissionregistration.k8s.io/v2"},
            "apiVersion: admissionregistration.k8s.io/v2 is none of",
        ),
        ({**policy("true"), "metadata": None}, "metadata.name: None is no name"),
        ({**policy("true"), "metadata": {"name": 5}}, "metadata.name: 5 is no name"),
        ({**policy("true"), "spec": None}, "spec: None: expected `object`"),
        ({**policy("true"), "data": {}}, "unknown field `data`"),
    ],
)
def test_what_is_no_policy_is_refused(value: Any, problem: str) -> None:
    assert problem in refusal(value)


def test_a_name_is_there_once(tmp_path: Path) -> None:
    one = written(tmp_path / "one.yaml", policy("true"))
    two = written(tmp_path / "two.yaml", policy("false"))
    with pytest.raises(PolicyError) as error:
        read([one, two])
    assert str(error.value) == f"{two}: ValidatingAdmissionPolicy p: it is also in {one}"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("bad.yaml", "a: [", "bad.yaml"),
        ("bad.json", '{"kind": ', "bad.json"),
        ("empty.yaml", "", "empty.yaml: it is empty"),
        ("empty.json", "", "empty.json: it is empty"),
        ("tag.yaml", "!!python/object/apply:os.system [id]", "tag.yaml"),
        ("deep.json", "[" * 100_000, "deep.json"),
    ],
)
def test_a_file_that_holds_no_policy_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PolicyError) as error:
        read([str(tmp_path / name)])
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(PolicyError, match=r"bomb\.yaml"):
        read([str(path)])


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml: No such file"):
        read([str(tmp_path / "nowhere.yaml")])
    with pytest.raises(PolicyError, match="it holds no ValidatingAdmissionPolicy"):
        read([str(tmp_path)])


def test_text_of_a_file_cannot_disguise_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"kind": "\u202eevil\x1b[31m"}))
    with pytest.raises(PolicyError) as error:
        read([str(path)])
    assert str(error.value).isprintable()
