"""How a release came to be: ``python -m tests.release.provenance`` prints it on GitHub's runners.

It is the predicate of SLSA's provenance, for the build type of GitHub's workflows.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: A base image that is pinned, as the Dockerfile names it.
PINNED = re.compile(
    r"FROM (?P<name>[a-z0-9.]+(?:/[a-z0-9-]+)+):(?P<tag>[\w.-]+)@sha256:(?P<digest>[0-9a-f]{64})"
    r" AS (?P<stage>\S+)"
)


def provenance(environment: Mapping[str, str], dockerfile: str) -> dict[str, Any]:
    """Return the provenance of what a run of a workflow builds.

    Args:
        environment: the variables ``GITHUB_*`` and ``RUNNER_ENVIRONMENT`` of the run.
        dockerfile: names the images that it starts from.
    """
    repository = f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_REPOSITORY']}"
    reference = environment["GITHUB_REF"]
    workflow = environment["GITHUB_WORKFLOW_REF"].partition("@")[0]
    path = workflow.removeprefix(f"{environment['GITHUB_REPOSITORY']}/")
    run = f"{environment['GITHUB_RUN_ID']}/attempts/{environment['GITHUB_RUN_ATTEMPT']}"
    source = {
        "uri": f"git+{repository}@{reference}",
        "digest": {"gitCommit": environment["GITHUB_SHA"]},
    }
    bases = [
        {
            "uri": f"pkg:oci/{one['name'].rpartition('/')[2]}@sha256%3A{one['digest']}"
            f"?repository_url={one['name']}&tag={one['tag']}",
            "digest": {"sha256": one["digest"]},
        }
        for line in dockerfile.splitlines()
        if (one := PINNED.fullmatch(line))
    ]
    return {
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {
                "workflow": {"ref": reference, "repository": repository, "path": path}
            },
            "internalParameters": {
                "github": {
                    "event_name": environment["GITHUB_EVENT_NAME"],
                    "repository_id": environment["GITHUB_REPOSITORY_ID"],
                    "repository_owner_id": environment["GITHUB_REPOSITORY_OWNER_ID"],
                    "runner_environment": environment["RUNNER_ENVIRONMENT"],
                }
            },
            "resolvedDependencies": [source, *bases],
        },
        "runDetails": {
            "builder": {
                "id": "https://github.com/actions/runner/" + environment["RUNNER_ENVIRONMENT"]
            },
            "metadata": {"invocationId": f"{repository}/actions/runs/{run}"},
        },
    }


if __name__ == "__main__":
    print(json.dumps(provenance(os.environ, (ROOT / "Dockerfile").read_text()), indent=2))
