from tests.release.provenance import provenance

DIGEST = "0" * 63 + "1"
RUN = {
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "owner/name",
    "GITHUB_REPOSITORY_ID": "1",
    "GITHUB_REPOSITORY_OWNER_ID": "2",
    "GITHUB_REF": "refs/tags/v1.2.3",
    "GITHUB_SHA": "c0ffee",
    "GITHUB_WORKFLOW_REF": "owner/name/.github/workflows/release.yaml@refs/tags/v1.2.3",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_RUN_ID": "3",
    "GITHUB_RUN_ATTEMPT": "4",
    "RUNNER_ENVIRONMENT": "github-hosted",
}
DOCKERFILE = f"""
ARG RUN_IMAGE=pinned-run
FROM registry.example/a/run:tag@sha256:{DIGEST} AS pinned-run
FROM ${{RUN_IMAGE}}
"""


def test_it_names_the_workflow_the_commit_and_the_base_images() -> None:
    found = provenance(RUN, DOCKERFILE)
    build = found["buildDefinition"]
    assert build["externalParameters"]["workflow"] == {
        "ref": "refs/tags/v1.2.3",
        "repository": "https://github.com/owner/name",
        "path": ".github/workflows/release.yaml",
    }
    assert build["resolvedDependencies"] == [
        {
            "uri": "git+https://github.com/owner/name@refs/tags/v1.2.3",
            "digest": {"gitCommit": "c0ffee"},
        },
        {
            "uri": f"pkg:oci/run@sha256%3A{DIGEST}?repository_url=registry.example/a/run&tag=tag",
            "digest": {"sha256": DIGEST},
        },
    ]
    run = found["runDetails"]
    assert run["builder"]["id"] == "https://github.com/actions/runner/github-hosted"
    assert run["metadata"]["invocationId"] == (
        "https://github.com/owner/name/actions/runs/3/attempts/4"
    )
