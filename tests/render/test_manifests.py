"""The checked-in manifests are those of the code, and hang together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import build_parser, main
from noderestrict.policy.cel import IS_NODE_USER
from noderestrict.policy.extra import Extra
from noderestrict.policy.table import table
from noderestrict.render import workload
from noderestrict.render.load import complete_files, parsed
from noderestrict.render.manifests import NO_CA, all_files, manifests
from noderestrict.render.registration import (
    parse_registration,
    webhook_configuration,
    webhook_rules,
)
from tests.render.overlays import OVERLAYS, build

ROOT = Path(__file__).parents[2]
FILES = manifests()


def objects() -> list[dict[str, Any]]:
    return [
        value
        for text in FILES.values()
        for value in parsed(text)
        if value is not None and "kind" in value
    ]


def test_the_files_are_what_make_manifests_writes(tmp_path: Path) -> None:
    assert main(["render", str(tmp_path)]) == 0
    for folder in (tmp_path, ROOT / "manifests"):
        found = {
            str(file.relative_to(folder)): file.read_text()
            for file in folder.rglob("*")
            if file.is_file()
        }
        assert found == all_files(), "run make manifests"


def test_every_resource_that_a_kustomization_names_is_there() -> None:
    named = 0
    for path, text in FILES.items():
        if path.endswith("kustomization.yaml"):
            for resource in yaml.safe_load(text).get("resources", ()):
                target = (Path("/m") / path).parent / resource
                where = str(target.resolve().relative_to("/m"))
                assert where in FILES or f"{where}/kustomization.yaml" in FILES
                named += 1
    assert named > len(OVERLAYS)


def test_everything_that_the_rules_judge_is_sent_to_exactly_one_webhook() -> None:
    sent = [
        resource.split("/")[0]
        for webhook in webhook_configuration({})["webhooks"]
        for rule in webhook["rules"]
        for resource in rule["resources"]
        if "/" not in resource or resource.endswith("/token")
    ]
    assert sorted(sent) == sorted({resource for _, resource, _, _ in table()})
    assert {rule["apiGroups"][0] for rule in webhook_rules()} == {
        group for group, _, _, _ in table()
    }


def test_every_webhook_fails_closed_and_fast_and_is_for_nodes_alone() -> None:
    webhooks = webhook_configuration({})["webhooks"]
    assert len(webhooks) > 1
    for webhook in webhooks:
        assert webhook["failurePolicy"] == "Fail"
        assert webhook["timeoutSeconds"] <= 3
        assert webhook["matchPolicy"] == "Equivalent"
        assert webhook["sideEffects"] == "None"
        (condition,) = webhook["matchConditions"]
        assert condition["expression"].startswith(IS_NODE_USER)


@pytest.mark.parametrize("version", ["1.25", "1.27", "v1.27.16"])
def test_before_match_conditions_nodes_go_on_while_the_webhook_is_away(
    version: str, tmp_path: Path
) -> None:
    assert main(["render", str(tmp_path), "--kubernetes-version", version]) == 0
    for overlay in OVERLAYS:
        text = (tmp_path / f"overlays/{overlay}/enforce/registration.yaml").read_text()
        assert "# For API servers before 1.28" in text
        registration = yaml.safe_load(text)
        policies = {}
        for webhook in registration["webhooks"]:
            # kubectl refuses a field that the API server does not know.
            assert "matchConditions" not in webhook
            policies[webhook["name"].split(".")[0]] = webhook["failurePolicy"]
        ignored = {name for name, policy in policies.items() if policy == "Ignore"}
        assert ignored == (set(policies) if overlay == "audit" else {"leases", "nodes", "pods"}), (
            overlay
        )
        assert set(policies.values()) <= {"Fail", "Ignore"}


@pytest.mark.parametrize("version", ["1.29", "1.36", "1.40"])
def test_with_match_conditions_the_version_changes_nothing(version: str, tmp_path: Path) -> None:
    assert main(["render", str(tmp_path), "--kubernetes-version", version]) == 0
    found = {
        str(file.relative_to(tmp_path)): file.read_text()
        for file in tmp_path.rglob("*")
        if file.is_file()
    }
    assert found == all_files()


def test_before_optional_fields_the_conditions_do_without(tmp_path: Path) -> None:
    assert main(["render", str(tmp_path), "--kubernetes-version", "1.28"]) == 0
    for overlay in OVERLAYS:
        path = f"overlays/{overlay}/enforce/registration.yaml"
        text = (tmp_path / path).read_text()
        assert ".?" in FILES[path]
        assert ".?" not in text
        usual, older = yaml.safe_load(FILES[path]), yaml.safe_load(text)
        for value in (usual, older):
            for webhook in value["webhooks"]:
                (condition,) = webhook["matchConditions"]
                del condition["expression"]
        assert usual == older


@pytest.mark.parametrize("version", ["1.27", "1.28", "1.29"])
def test_servers_expect_the_registration_for_their_version(version: str, tmp_path: Path) -> None:
    assert main(["render", str(tmp_path), f"--kubernetes-version={version}"]) == 0
    files = {
        str(file.relative_to(tmp_path)): file.read_text()
        for file in tmp_path.rglob("*")
        if file.is_file()
    }
    for overlay in OVERLAYS:
        objects_ = build(overlay, files=files)
        (registration,) = (one for one in objects_ if one["kind"].startswith("Validating"))
        (server,) = (one for one in objects_ if one["kind"] in ("Deployment", "DaemonSet"))
        arguments = server["spec"]["template"]["spec"]["containers"][0]["args"]
        (flag,) = [one for one in arguments if one.startswith("--expected-registration=")][-1:]
        expected = parse_registration(flag.partition("=")[2]).value(Extra())
        for webhook in registration["webhooks"]:
            del webhook["clientConfig"]["caBundle"]
        assert expected["webhooks"] == registration["webhooks"], overlay


@pytest.mark.parametrize("version", ["1.24", "1", "2.0", "x"])
def test_a_version_that_is_none_is_refused(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["render", str(tmp_path), "--kubernetes-version", version])
    assert version in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_policy_flags_reach_the_server_and_its_registration(tmp_path: Path) -> None:
    flags = ["--strict-rules=nodes/finalizers,events/about-own", "--forbid-node-labels=*=tier|a/*"]
    assert main(["render", str(tmp_path), *flags]) == 0
    for file in ("service/deployment.yaml", "overlays/control-plane/install/daemon-set.yaml"):
        workload_ = yaml.safe_load((tmp_path / file).read_text())
        assert set(flags) < set(workload_["spec"]["template"]["spec"]["containers"][0]["args"])
    for overlay in OVERLAYS:
        file_ = tmp_path / f"overlays/{overlay}/enforce/registration.yaml"
        registration = yaml.safe_load(file_.read_text())
        webhooks = {webhook["name"].split(".")[0]: webhook for webhook in registration["webhooks"]}
        assert {rule["apiGroups"][0] for rule in webhooks["events"]["rules"]} == {
            "",
            "events.k8s.io",
        }
        condition = webhooks["nodes"]["matchConditions"][0]["expression"]
        assert "object.?metadata.?finalizers" in condition
        assert "key.startsWith('a/') || key == 'tier'" in condition
        assert "unschedulable" not in condition


def test_containers_run_without_rights_and_with_flags_that_exist() -> None:
    parsers = build_parser()[1]
    seen = set()
    for value in objects():
        for container in containers(value):
            assert container["image"] == workload.IMAGE
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            command, *arguments = container["args"]
            options = parsers[command].parse_args(arguments)
            if command == "certs":
                assert options.secret == (workload.NAMESPACE, workload.TLS_SECRET)
                assert options.ca_secret == (workload.NAMESPACE, workload.CA_SECRET)
            seen.add((value["kind"], command))
    assert seen == {("Deployment", "serve"), ("DaemonSet", "serve"), ("CronJob", "certs"),
                    ("Job", "certs")}  # fmt: skip


def test_every_object_of_ours_has_its_namespace_and_no_data_file_is_left_out() -> None:
    cluster_scoped = {
        "ClusterRole",
        "ClusterRoleBinding",
        "Namespace",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
    for value in objects():
        metadata = value.get("metadata")
        if value["kind"] not in cluster_scoped and metadata:
            # Events about nodes are in namespace default.
            about_nodes = metadata["name"] == "noderestrict-events"
            wanted = "default" if about_nodes else workload.NAMESPACE
            assert metadata["namespace"] == wanted, metadata
    assert set(complete_files()) < set(FILES)


def containers(value: Any) -> list[dict[str, Any]]:
    """Return the containers of every pod template of an object."""
    if isinstance(value, list):
        return [one for item in value for one in containers(item)]
    if not isinstance(value, dict):
        return []
    found = value.get("containers", [])
    return [*found, *(one for item in value.values() for one in containers(item))]


def test_servers_expect_the_registration_that_their_overlay_installs() -> None:
    for overlay in OVERLAYS:
        built = build(overlay)
        (installed,) = [one for one in built if one["kind"] == "ValidatingWebhookConfiguration"]
        (server,) = [one for one in built if one["kind"] in ("Deployment", "DaemonSet")]
        _, *arguments = server["spec"]["template"]["spec"]["containers"][0]["args"]
        options = build_parser()[1]["serve"].parse_args(arguments)
        expected = parse_registration(options.expected_registration).value(Extra())
        for webhook in installed["webhooks"]:
            # Else nobody could verify the server, and every API server refuses it.
            assert webhook["clientConfig"].pop("caBundle") == NO_CA
        assert expected["webhooks"] == installed["webhooks"]
        for webhook in installed["webhooks"]:
            # Said, so that an apply takes back what somebody has set.
            everything: dict[str, Any] = {"matchExpressions": [], "matchLabels": None}
            assert webhook["objectSelector"] == webhook["namespaceSelector"] == everything


def test_a_directory_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main(["render", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_audiences_reach_every_server(tmp_path: Path) -> None:
    assert main(["render", str(tmp_path), "--api-audiences", "a,b"]) == 0
    told = [
        container["args"]
        for file in tmp_path.rglob("*.yaml")
        if "chart" not in file.parts
        for value in parsed(file.read_text())
        if value and value.get("kind") in ("Deployment", "DaemonSet") and "spec" in value
        for container in value["spec"]["template"]["spec"]["containers"]
    ]
    assert len(told) == 2
    assert all("--api-audiences=a,b" in words for words in told)


def test_the_server_may_have_its_own_token_reviewed() -> None:
    (role,) = (value for value in objects() if value["kind"] == "ClusterRole"
               and value["metadata"]["name"] == "noderestrict")  # fmt: skip
    granted = {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }
    assert ("create", "authentication.k8s.io", "tokenreviews") in granted


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_component_for_events_turns_them_on_and_grants_no_more_than_they_need(
    overlay: str,
) -> None:
    built = build(overlay, ["events"])
    (server,) = [one for one in built if one["kind"] in ("Deployment", "DaemonSet")]
    _, *arguments = server["spec"]["template"]["spec"]["containers"][0]["args"]
    assert build_parser()[1]["serve"].parse_args(arguments).events is True
    (role,) = [one for one in built if one["metadata"]["name"] == "noderestrict-events"
               and one["kind"] == "Role"]  # fmt: skip
    assert role["metadata"]["namespace"] == "default"
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}
    ]
    (binding,) = [one for one in built if one["metadata"]["name"] == "noderestrict-events"
                  and one["kind"] == "RoleBinding"]  # fmt: skip
    (subject,) = binding["subjects"]
    account = server["spec"]["template"]["spec"]["serviceAccountName"]
    assert (subject["namespace"], subject["name"]) == (workload.NAMESPACE, account)
