"""What the doctor finds of policies: each test plants one fault."""

import asyncio
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.cluster.judge import connected
from noderestrict.doctor.check import Check
from noderestrict.doctor.checks import manifests as manifests_check
from noderestrict.doctor.checks import policies
from noderestrict.doctor.cluster import Options
from noderestrict.doctor.findings import Finding, exit_code
from noderestrict.doctor.run import examine
from noderestrict.policy.extra import Extra
from noderestrict.policy.releases import RULES_ANNOTATION, Release
from noderestrict.policy.settings import Settings
from noderestrict.render import policies as rendering
from noderestrict.render.load import parsed
from noderestrict.render.manifests import manifests
from noderestrict.render.overlay import build
from tests.cli.store import stored
from tests.doctor.test_credentials import WEBHOOKS, Cluster, path_of

Object = dict[str, Any]
API = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = (
    f"{API}/validatingadmissionpolicies",
    f"{API}/validatingadmissionpolicybindings",
)
LIST = {"ValidatingAdmissionPolicy": POLICIES, "ValidatingAdmissionPolicyBinding": BINDINGS}
VERSION = "app.kubernetes.io/version"


class APIServer(Cluster):
    """A cluster whose policies are a test's choice."""

    has_policies = True

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) in self.refused:
            return 403, {"message": "forbidden"}
        if path in LIST.values() and not self.has_policies:
            return 404, {"message": "the server could not find the requested resource"}
        return super().answer(method, path, body)

    def install_policies(self, options: rendering.Options | None = None) -> None:
        """Install policies as an API server gives them back."""
        for value in parsed(rendering.files(options)["policies.yaml"]):
            value["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": []}
            value["status"] = {"observedGeneration": 1, "typeChecking": {}}
            self.add(LIST[value["kind"]], value)

    def webhook(self) -> None:
        self.objects[f"{WEBHOOKS}/noderestrict"] = {"metadata": {"name": "noderestrict"}}

    def one(self, path: str, name: str = "noderestrict-nodes") -> Object:
        return next(one for one in self.lists[path] if one["metadata"]["name"] == name)

    def drop(self, path: str, name: str = "noderestrict-nodes") -> None:
        self.lists[path].remove(self.one(path, name))


@pytest.fixture
def cluster() -> APIServer:
    found = APIServer()
    found.install_policies()
    found.webhook()
    return found


Doctor = Callable[..., list[Finding]]


@pytest.fixture
def doctor(cluster: APIServer, tmp_path: Path) -> Iterator[Doctor]:
    async def findings(options: Options, check: Check) -> list[Finding]:
        async with connected(str(kubeconfig), None) as connection:
            found = examine(connection, options, [check])
            return [finding async for _, finding in found]

    with stored(cluster, tmp_path) as kubeconfig:
        yield lambda check=policies.CHECK, **options: asyncio.run(
            findings(Options(**options), check)
        )


def worst(found: list[Finding], status: str = "fail") -> str:
    """Return the message of the only finding with a status."""
    (finding,) = (one for one in found if one.status == status)
    assert finding.remedy
    assert finding.command
    return finding.message


def test_policies_as_rendered_beside_the_webhook_are_well(doctor: Doctor) -> None:
    found = doctor()
    assert [one.status for one in found] == ["pass", "pass"]
    assert found[0].message.startswith("the webhook is registered, too: it alone holds ")
    assert "pods/evict-own" in found[0].message
    assert found[1].message.endswith("hold the rules of 1.37 in mode deny, as they are rendered")


def test_without_the_webhook_it_says_what_is_open(cluster: APIServer, doctor: Doctor) -> None:
    cluster.objects.clear()
    found = doctor()
    assert [one.status for one in found] == ["warn", "pass"]
    assert found[0].message.startswith("without the webhook, nothing holds ")
    assert "serviceaccounts-token/audience" in found[0].message
    assert "what nodes read" in found[0].message


def test_no_policies_are_no_fault(cluster: APIServer, doctor: Doctor) -> None:
    cluster.lists.clear()
    (found,) = doctor()
    assert found.status == "pass"
    assert found.message.startswith("none are installed")


def test_policies_of_others_are_not_ours(cluster: APIServer, doctor: Doctor) -> None:
    cluster.lists.clear()
    cluster.add(POLICIES, {"metadata": {"name": "noderestrict-mine"}, "spec": {}})
    (found,) = doctor()
    assert found.message.startswith("none are installed")


def test_an_old_api_server_has_none(cluster: APIServer, doctor: Doctor) -> None:
    cluster.has_policies = False
    (found,) = doctor()
    assert found.status == "pass"
    assert "1.30" in found.message


@pytest.mark.parametrize("path", [POLICIES, BINDINGS, f"{WEBHOOKS}/noderestrict"])
def test_what_it_cannot_see_is_unknown(cluster: APIServer, doctor: Doctor, path: str) -> None:
    cluster.refused.add(("GET", path))
    found = doctor()
    assert [one.status for one in found] == ["unknown"]
    assert exit_code(found) == 2


def test_a_missing_policy_is_named(cluster: APIServer, doctor: Doctor) -> None:
    cluster.drop(POLICIES)
    found = doctor()
    assert worst(found) == "ValidatingAdmissionPolicy noderestrict-nodes is missing"
    assert exit_code(found) == 1


def test_a_policy_without_a_binding_does_nothing(cluster: APIServer, doctor: Doctor) -> None:
    cluster.drop(BINDINGS)
    assert worst(doctor()) == (
        "ValidatingAdmissionPolicyBinding noderestrict-nodes is missing, so that its policy "
        "does nothing"
    )


def loosened(value: Object) -> None:
    value["spec"]["variables"][-1]["expression"] = "true"


def exempted(value: Object) -> None:
    value["spec"]["matchConditions"].append({"name": "never", "expression": "false"})


def narrowed(value: Object) -> None:
    value["spec"]["matchConstraints"]["resourceRules"][0]["operations"] = ["CREATE"]


def excluded(value: Object) -> None:
    value["spec"]["matchConstraints"]["objectSelector"] = {"matchLabels": {"a": "b"}}


def ignored(value: Object) -> None:
    value["spec"]["failurePolicy"] = "Ignore"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (loosened, "/spec/variables/"),
        (exempted, "/spec/matchConditions/"),
        (narrowed, "/spec/matchConstraints/resourceRules/0/operations"),
        (excluded, "/spec/matchConstraints/objectSelector"),
        (ignored, "/spec/failurePolicy"),
    ],
)
def test_every_change_of_a_policy_is_found(
    change: Callable[[Object], None], field: str, cluster: APIServer, doctor: Doctor
) -> None:
    change(cluster.one(POLICIES))
    found = doctor()
    failures = [one.message for one in found if one.status == "fail"]
    assert failures
    assert all("ValidatingAdmissionPolicy noderestrict-nodes: " in one for one in failures)
    assert any(field in one for one in failures)
    assert not any("as they are rendered" in one.message for one in found)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"matchResources": {"objectSelector": {"matchLabels": {"a": "b"}}}}, "matchResources"),
        ({"validationActions": ["Audit"]}, "validationActions"),
        ({"policyName": "other"}, "policyName"),
        ({"paramRef": {"name": "x", "parameterNotFoundAction": "Allow"}}, "paramRef"),
    ],
)
def test_every_change_of_a_binding_is_found(
    spec: Object, field: str, cluster: APIServer, doctor: Doctor
) -> None:
    cluster.one(BINDINGS)["spec"] |= spec
    failures = [one.message for one in doctor() if one.status == "fail"]
    assert failures
    assert all(f"/spec/{field}" in one for one in failures)


def test_a_change_is_found_without_our_labels(cluster: APIServer, doctor: Doctor) -> None:
    value = cluster.one(POLICIES)
    value["metadata"]["labels"] = {}
    ignored(value)
    assert "failurePolicy" in worst(doctor())


def test_a_validation_that_is_gone_is_left_out(cluster: APIServer, doctor: Doctor) -> None:
    validations = cluster.one(POLICIES)["spec"]["validations"]
    validations[:] = [one for one in validations if "nodes/labels" not in one["message"]]
    assert any("they leave out nodes/labels" in one.message for one in doctor())
    cluster.objects.clear()
    (found,) = (one for one in doctor() if "they leave out" in one.message)
    assert found.status == "fail"


def test_a_binding_more_is_shown(cluster: APIServer, doctor: Doctor) -> None:
    more = copy.deepcopy(cluster.one(BINDINGS))
    more["metadata"]["name"] = "canary"
    cluster.add(BINDINGS, more)
    assert worst(doctor(), "warn") == (
        "ValidatingAdmissionPolicyBinding canary is not one that is rendered"
    )


@pytest.mark.parametrize(("mode", "what"), [("warn", "warn of"), ("audit", "audit")])
def test_a_mode_that_refuses_nothing_is_said(
    mode: str, what: str, cluster: APIServer, doctor: Doctor
) -> None:
    cluster.lists.clear()
    cluster.install_policies(rendering.Options(mode=mode))
    found = doctor()
    assert f" only {what} what they should refuse" in worst(found, "warn")
    assert not [one for one in found if one.status == "fail"]
    assert any(f"in mode {mode}, as they are rendered" in one.message for one in found)
    assert not [one for one in doctor(expected_mode="audit") if one.status == "warn"]
    cluster.objects.clear()
    assert f" only {what} what they should refuse" in worst(doctor())


def test_modes_of_single_rules_are_as_rendered(cluster: APIServer, doctor: Doctor) -> None:
    cluster.lists.clear()
    modes = {"nodes/labels": "audit", "nodes/taints": "off"}
    cluster.install_policies(rendering.Options(rule_modes=modes))
    messages = [one.message for one in doctor()]
    assert "they leave out nodes/taints" in messages
    assert "noderestrict-nodes-audit only audit what they should refuse" in messages
    assert any("in mode audit, deny, as they are rendered" in one for one in messages)


def test_rules_of_an_older_release_are_said(cluster: APIServer, doctor: Doctor) -> None:
    cluster.lists.clear()
    release = Release(33)
    settings = Settings.for_version(33, release=release)
    cluster.install_policies(rendering.Options(settings))
    found = doctor()
    assert worst(found, "warn") == (
        "they hold the rules of 1.33; the newest known are those of 1.37"
    )


@pytest.mark.parametrize("release", ["", "next", "1.2"])
def test_a_release_that_is_none_is_said(release: str, cluster: APIServer, doctor: Doctor) -> None:
    for value in cluster.lists[POLICIES]:
        value["metadata"]["annotations"] = {RULES_ANNOTATION: release}
    messages = [one.message for one in doctor() if one.status == "warn"]
    assert any("does not say whose rules they hold" in one for one in messages)


def test_rules_of_a_release_that_is_not_known_differ(cluster: APIServer, doctor: Doctor) -> None:
    for value in cluster.lists[POLICIES]:
        value["metadata"]["annotations"] = {RULES_ANNOTATION: "1.99"}
    assert not [one for one in doctor() if one.status == "unknown"]


def test_different_releases_are_said(cluster: APIServer, doctor: Doctor) -> None:
    cluster.one(POLICIES)["metadata"]["annotations"] = {RULES_ANNOTATION: "1.33"}
    messages = [one.message for one in doctor()]
    assert "they hold the rules of different releases: 1.33, 1.37" in messages


def test_another_version_of_this_program_is_said(cluster: APIServer, doctor: Doctor) -> None:
    cluster.one(POLICIES)["metadata"]["labels"][VERSION] = "0.0.1"
    assert worst(doctor(), "warn").startswith("version 0.0.1 rendered them; this is ")


def test_warnings_of_the_type_check_are_shown(cluster: APIServer, doctor: Doctor) -> None:
    warning = {"fieldRef": "spec.validations[0].expression", "warning": "v1, Kind=Node:\nno x"}
    cluster.one(POLICIES)["status"]["typeChecking"] = {"expressionWarnings": [warning]}
    assert worst(doctor(), "warn") == (
        "ValidatingAdmissionPolicy noderestrict-nodes: the API server warns of "
        "spec.validations[0].expression: v1, Kind=Node: no x"
    )


def test_the_policy_of_the_operator_is_rendered(cluster: APIServer, doctor: Doctor) -> None:
    extra = Extra.of(("nodes/annotations",))
    cluster.lists.clear()
    settings = Settings.for_version(37, extra=extra)
    cluster.install_policies(rendering.Options(settings))
    assert [one.status for one in doctor(extra=extra)] == ["pass", "pass"]
    assert [one for one in doctor() if one.status == "fail"]
    cluster.lists.clear()
    cluster.install_policies()
    (left_out,) = (one for one in doctor(extra=extra) if one.status == "warn")
    assert left_out.message == "they leave out nodes/annotations"
    assert "--strict-rules=nodes/annotations" in left_out.command


def test_a_rule_that_is_in_no_policy_does_not_confuse(cluster: APIServer, doctor: Doctor) -> None:
    more = copy.deepcopy(cluster.one(POLICIES))
    more["metadata"]["name"] = "noderestrict-nodes-warn"
    more["spec"]["validations"] = [{"expression": "true", "message": "pods/evict-own: any"}]
    cluster.add(POLICIES, more)
    messages = [one.message for one in doctor()]
    assert "ValidatingAdmissionPolicy noderestrict-nodes-warn is not one that is rendered" in (
        messages
    )


def test_a_changed_policy_is_no_difference_of_the_manifests(
    cluster: APIServer, doctor: Doctor
) -> None:
    for value in cluster.lists[POLICIES] + cluster.lists[BINDINGS]:
        cluster.objects[path_of(value)] = value
    for value in build("self-signed", manifests()):
        cluster.objects[path_of(value)] = value
    cluster.install("self-signed")
    ignored(cluster.one(POLICIES))
    assert [one.status for one in doctor(check=manifests_check.CHECK)] == ["pass"]
    assert "failurePolicy" in worst(doctor())
