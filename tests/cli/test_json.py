"""Every command that prints a result prints it as JSON on demand."""

import argparse
import json
from pathlib import Path

import pytest

from noderestrict.cli import main
from tests.cli.process import EXAMPLES, ROOT
from tests.cli.walk import LEAVES

#: They write files, a script, or serve: what they print is no result.
OTHERS = {
    "completion", "render", "render authorizer", "render overlay", "render policies",
    "render values", "serve",
}  # fmt: skip


@pytest.mark.parametrize("command", [name for name in LEAVES if name not in OTHERS])
def test_every_command_with_a_result_has_the_flag(command: str) -> None:
    (flag,) = (one for one in LEAVES[command]._actions if "--output" in one.option_strings)
    assert isinstance(flag, argparse.Action)
    assert flag.option_strings == ["-o", "--output"]
    assert flag.choices is not None
    assert "json" in flag.choices
    assert flag.default in flag.choices


def test_what_is_printed_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "output.md").read_text()
    for command in set(LEAVES) - OTHERS:
        assert f"| `{command}` | " in page
        assert f"- `{command}` prints " in page or f"- `{command.split()[0]}` prints " in page


def test_certs_tells_what_it_did_and_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def told(action: str) -> dict[str, object]:
        code = main(
            ["certs", action, "--directory", str(tmp_path / "tls"), "--ca-directory",
             str(tmp_path / "ca"), "--output", "json"]
        )  # fmt: skip
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        assert (found.pop("action"), found.pop("exitCode")) == (action, code)
        return found

    assert told("check") == {
        "done": [],
        "problems": [f"{tmp_path / 'ca'}: there is no CA", "there is no certificate"],
        "warnings": [],
    }
    assert told("bootstrap") == {
        "done": [f"{tmp_path / 'ca'}: written", f"{tmp_path / 'tls'}: written"],
        "problems": [f"{tmp_path / 'ca'}: there is no CA", "there is no certificate"],
        "warnings": [],
    }
    nothing: dict[str, object] = {"done": [], "problems": [], "warnings": []}
    assert told("check") == told("bootstrap") == told("renew") == nothing
    rotated = told("rotate")
    assert rotated["warnings"] == [
        "the old CA is still trusted: rotate again when every server serves the new certificate"
    ]


def test_a_learned_policy_is_json_that_can_be_read_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    event = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "stage": "ResponseComplete",
        "auditID": "1",
        "verb": "get",
        "user": {
            "username": "system:serviceaccount:kube-system:agent",
            "extra": {"authentication.kubernetes.io/node-name": ["n1"]},
        },
        "objectRef": {"resource": "nodes", "name": "n1", "apiVersion": "v1"},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
    }
    log = tmp_path / "audit.log"
    log.write_text(json.dumps(event) + "\n")
    line = ["agents", "learn", "--audit-log", str(log), "--user", "agent", "-n", "kube-system"]
    assert main([*line, "--output", "json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"policy", "unexplained"}
    (agent,) = found["policy"]["agents"]
    assert "kube-system/agent" in json.dumps(agent)
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(found["policy"]))
    review = str(EXAMPLES / "mirror-pod-review.json")
    assert main(["replay", review, "--agents", str(policy)]) == 0
