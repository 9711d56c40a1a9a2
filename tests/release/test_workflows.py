"""What the workflows may do, and when."""

from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yaml"))
#: A run by hand has a tag for its ref, too, if one is chosen.
PUSHED = "github.event_name == 'push'"
#: Words of steps that change what others see.
_PUBLISH = ("login-action", "attest-build-provenance", "cosign", "helm push", "twine", "gh release")


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def test_only_a_pushed_tag_publishes() -> None:
    # "on" is a boolean to YAML 1.1.
    events = yaml.safe_load((FOLDER / "release.yaml").read_text())[True]
    assert events == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    publishing = [
        {"job": job.get("if"), "step": step.get("if"), "push": step.get("with", {}).get("push")}
        for job in jobs(FOLDER / "release.yaml").values()
        for step in job["steps"]
        if any(word in f"{step.get('uses')} {step.get('run')}" for word in _PUBLISH)
        or "push" in step.get("with", {})
    ]
    assert publishing
    for one in publishing:
        assert PUSHED in (one["job"], one["step"]) or one["push"] == f"${{{{ {PUSHED} }}}}", one


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda one: one.stem)
def test_a_job_that_nobody_pushed_a_tag_for_has_no_environment_nor_writes(workflow: Path) -> None:
    top = yaml.safe_load(workflow.read_text())["permissions"]
    for name, job in jobs(workflow).items():
        rights = job.get("permissions", top).values()
        # The image is built for both architectures in a dry run, too.
        if ("environment" in job or "write" in rights) and name != "image":
            assert job["if"] == PUSHED, name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda one: one.stem)
def test_a_job_ends_and_fails_where_a_part_of_a_pipe_does(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["defaults"] == {"run": {"shell": "bash"}}
    assert all(one["timeout-minutes"] <= 120 for one in jobs(workflow).values())
