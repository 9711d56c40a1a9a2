"""What the workflows may do, and when."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.release.test_provenance import RUN

FOLDER = Path(__file__).parents[2] / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yaml"))
#: A run by hand has a tag for its ref, too, if one is chosen.
PUSHED = "github.event_name == 'push'"
#: Words of steps that change what others see.
_PUBLISH = ("auth login", "attest-build-provenance", "release/registry", "twine", "gh release")


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def signed_by(run: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which the release workflow says who must have signed.

    Args:
        run: the variables ``GITHUB_*`` of its run.
    """
    steps = jobs(FOLDER / "release.yaml")["publish"]["steps"]
    (found,) = [one["env"] for one in steps if "COSIGN_CERTIFICATE_IDENTITY" in one.get("env", {})]
    expression = re.compile(r"\$\{\{ github\.(\w+) \}\}")
    return {
        name: expression.sub(lambda one: run[f"GITHUB_{one[1].upper()}"], value)
        for name, value in found.items()
        if name.startswith("COSIGN_")
    }


def test_only_a_pushed_tag_publishes() -> None:
    # "on" is a boolean to YAML 1.1.
    events = yaml.safe_load((FOLDER / "release.yaml").read_text())[True]
    assert events == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    publishing = [
        (name, word)
        for name, job in jobs(FOLDER / "release.yaml").items()
        for step in job["steps"]
        for word in _PUBLISH
        if word in f"{step.get('uses')} {step.get('run')}"
    ]
    assert {word for _, word in publishing} == set(_PUBLISH)
    for name, _ in publishing:
        assert jobs(FOLDER / "release.yaml")[name]["if"] == PUSHED, name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda one: one.stem)
def test_a_job_that_nobody_pushed_a_tag_for_has_no_environment_nor_writes(workflow: Path) -> None:
    top = yaml.safe_load(workflow.read_text())["permissions"]
    for name, job in jobs(workflow).items():
        rights = job.get("permissions", top).values()
        if "environment" in job or "write" in rights:
            assert job["if"] == PUSHED, name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda one: one.stem)
def test_a_job_ends_and_fails_where_a_part_of_a_pipe_does(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["defaults"] == {"run": {"shell": "bash"}}
    assert all(one["timeout-minutes"] <= 120 for one in jobs(workflow).values())


def test_users_verify_who_signed_as_the_workflow_does() -> None:
    text = (FOLDER.parents[1] / "SECURITY.md").read_text()
    text = text.replace("REPOSITORY", "owner/name").replace("VERSION", "1.2.3")
    assert dict(re.findall(r"export (COSIGN_\w+)=(\S+)", text)) == signed_by(RUN)
