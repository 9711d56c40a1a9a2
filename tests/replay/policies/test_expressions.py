"""Expressions have the values that they have in an API server.

Each line of ``expressions.jsonl`` is an expression with what apiserver v0.37.2 makes of it, which
uses cel-go v0.29.2: a value, an error, or a refusal to compile it. Most of the first 280 lines look
for what libraries for CEL do differently; the others are random, and full of nulls and of what is
not there.
"""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cel_expr_python.cel", reason="no CEL runtime for this platform")

from noderestrict.replay.policies import cel

_TEXT = (Path(__file__).parent / "expressions.jsonl").read_text(encoding="utf-8")
_LINES = [json.loads(line) for line in _TEXT.splitlines()]
_OBJECT, CASES = _LINES[0]["object"], _LINES[1:]
_VALUES = {
    "request": {
        "kind": {"group": "", "version": "v1", "kind": "Node"},
        "resource": {"group": "", "version": "v1", "resource": "nodes"},
        "requestKind": {"group": "", "version": "v1", "kind": "Node"},
        "requestResource": {"group": "", "version": "v1", "resource": "nodes"},
        "name": "n1",
        "operation": "UPDATE",
        "userInfo": {
            "username": "system:node:n1",
            "groups": ["system:nodes", "system:authenticated"],
        },
        "dryRun": False,
        "options": None,
    },
}


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    """Return what becomes of a case, as the case says what should."""
    compiler = cel.Compiler()
    try:
        variables = {
            name: compiler.variable(name, text) for name, text in case.get("variables", {}).items()
        }
        program = compiler.compile(case["expression"])
    except cel.CompileError:
        return {"compiles": False}
    given = {**_VALUES, "object": case.get("object", _OBJECT), "oldObject": case.get("oldObject")}
    try:
        return {"value": cel.Values(given, variables).value(program)}
    except cel.EvaluationError:
        return {"fails": True}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["expression"]) for case in CASES])
def test_an_expression_has_the_value_that_it_has_in_an_api_server(case: dict[str, Any]) -> None:
    found = outcome(case)
    assert found == {key: case[key] for key in ("compiles", "fails", "value") if key in case}
    if "value" in found:
        assert _types(found["value"]) == _types(case["value"])


def _types(value: Any) -> Any:
    """Return the types in a value: true is not 1."""
    if isinstance(value, dict):
        return {key: _types(one) for key, one in value.items()}
    return [_types(one) for one in value] if isinstance(value, list) else type(value)
