"""What the doctor finds of a cluster, and what its exit code makes of it."""

import base64
import copy
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.doctor.checks.registration import check_registration
from noderestrict.pki.issue import create_authority
from noderestrict.policy.extra import Extra
from noderestrict.render.authorizer import authorization_configuration
from noderestrict.render.registration import cluster_role, webhook_configuration
from noderestrict.render.workload import NAMESPACE
from tests.cli.store import served, stored
from tests.doctor.test_credentials import WEBHOOKS, Cluster
from tests.serving.tls import authority

Object = dict[str, Any]
Found = list[tuple[str, str]]
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
SERVER = "system:serviceaccount:noderestrict:noderestrict"
DAY = dt.timedelta(days=1)
SERVICE = {"service": {"name": "noderestrict", "namespace": NAMESPACE, "path": "/validate"}}
ENDPOINTS = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
API_SERVERS = "/api/v1/namespaces/kube-system/pods"


class APIServer(Cluster):
    """A cluster whose version and answer to a lease of another node are a test's choice."""

    def __init__(self) -> None:
        super().__init__()
        self.version = "v1.36.2"
        self.lease: tuple[int, Object] = (201, {"metadata": {"name": "x"}})
        self.groups: set[tuple[str, ...]] = set()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Object]:
        if path == "/version":
            return 200, {"gitVersion": self.version}
        if path == LEASES:
            return self.lease
        if path.endswith("/subjectaccessreviews"):
            self.groups.add((body["spec"]["user"], *body["spec"]["groups"]))
        return super().answer(method, path, body)

    def register(self, ca: bytes = b"", client: Object | None = None) -> Object:
        encoded: Object = {"caBundle": base64.b64encode(ca).decode()} if ca else {}
        value = webhook_configuration({**(client or SERVICE), **encoded})
        self.objects[f"{WEBHOOKS}/noderestrict"] = value
        return value


class Doctor:
    def __init__(
        self, cluster: APIServer, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.cluster = cluster
        self.code = -1
        self._kubeconfig = kubeconfig
        self._capsys = capsys

    def __call__(self, check: str, *flags: str) -> Found:
        """Return status and message of each finding of a check."""
        findings = json.loads(self.text("--output", "json", *flags))
        statuses = {one["status"] for one in findings}
        assert self.code == (1 if "fail" in statuses else 2 if "unknown" in statuses else 0)
        assert all(one["remedy"] for one in findings if one["status"] != "pass")
        assert all(one["command"] for one in findings if one["status"] == "fail")
        return [(one["status"], one["message"]) for one in findings if one["check"] == check]

    def text(self, *flags: str) -> str:
        self._capsys.readouterr()
        self.code = main(["doctor", "--kubeconfig", str(self._kubeconfig), *flags])
        return self._capsys.readouterr().out


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Doctor]:
    cluster = APIServer()
    with stored(cluster, tmp_path) as kubeconfig:
        yield Doctor(cluster, kubeconfig, capsys)


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [
        ("v1.36.2", "pass", "1.36.2"),
        ("v1.25.0", "pass", "1.25.0"),
        ("v1.20.5", "fail", "CVE-2021-25735"),
        ("v1.24.17", "warn", "1.24.17"),
        ("v1.99.0", "warn", "1.99.0"),
        ("v2.0.0", "unknown", "could not be checked"),
        ("", "unknown", "could not be checked"),
    ],
)
def test_a_version_is_known_unknown_or_open(
    doctor: Doctor, version: str, status: str, says: str
) -> None:
    doctor.cluster.version = version
    ((found, message),) = doctor("server version")
    assert found == status
    assert says in message


def test_a_check_that_cannot_be_made_is_told_and_the_others_are_made(doctor: Doctor) -> None:
    doctor.cluster.refused.add(("GET", f"{WEBHOOKS}/noderestrict"))
    for check in ("registration", "certificate", "endpoints"):
        ((status, message),) = doctor(check)
        assert status == "unknown"
        assert "could not be checked" in message
        assert "403" in message
    assert doctor("server version") == [("pass", "1.36.2")]


def test_a_table_has_a_mark_a_message_and_a_remedy(doctor: Doctor) -> None:
    text = doctor.text()
    assert doctor.code == 1
    assert "[+] server version: 1.36.2\n" in text
    assert "[-] registration: ValidatingWebhookConfiguration noderestrict " in text
    assert "\n      apply one of manifests/overlays\n      $ kubectl apply -k manifests/" in text
    assert "[?] in-tree plugin: " in text


def installed(extra: Extra = Extra()) -> Object:  # noqa: B008 (it never changes)
    value = webhook_configuration(SERVICE, extra=extra)
    for webhook in value["webhooks"]:
        webhook["clientConfig"]["caBundle"] = "YQ=="
    return value


def in_all(field: str, new: Any) -> Callable[[Object], None]:
    return lambda webhook: webhook.__setitem__(field, new)


def in_rules(**fields: Any) -> Callable[[Object], None]:
    def change(webhook: Object) -> None:
        for rule in webhook["rules"]:
            rule.update(fields)

    return change


def without(operation: str) -> Callable[[Object], None]:
    def change(webhook: Object) -> None:
        for rule in webhook["rules"]:
            rule["operations"] = [one for one in rule["operations"] if one != operation]

    return change


def without_sub_resources(webhook: Object) -> None:
    for rule in webhook["rules"]:
        rule["resources"] = [one for one in rule["resources"] if "/" not in one]


def never(webhook: Object) -> None:
    webhook["matchConditions"].append({"name": "never", "expression": "false"})


#: Each of every webhook, with what the doctor says of it.
BAD: dict[str, tuple[Callable[[Object], None], str, str]] = {
    "match policy": (in_all("matchPolicy", "Exact"), "fail", "matchPolicy is 'Exact'"),
    "no match policy": (in_all("matchPolicy", None), "fail", "matchPolicy is None"),
    "namespaces": (
        in_all("namespaceSelector", {"matchLabels": {"a": "b"}}), "fail", "namespaceSelector"
    ),
    "objects": (
        in_all("objectSelector", {"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
        "fail", "objectSelector",
    ),
    "review versions": (
        in_all("admissionReviewVersions", ["v1beta1", "v1"]), "fail", "admissionReviewVersions"
    ),
    "failure policy": (in_all("failurePolicy", "Ignore"), "warn", "failurePolicy is 'Ignore'"),
    "time-out": (in_all("timeoutSeconds", 4), "warn", "timeoutSeconds is 4"),
    "no time-out": (in_all("timeoutSeconds", None), "warn", "timeoutSeconds is None"),
    "no rules": (in_all("rules", None), "fail", "not sent to any webhook"),
    "groups": (in_rules(apiGroups=["example.com"]), "fail", "not sent to any webhook"),
    "versions": (in_rules(apiVersions=["v9"]), "fail", "not sent to any webhook"),
    "resources": (in_rules(resources=["widgets"]), "fail", "not sent to any webhook"),
    "sub-resources": (without_sub_resources, "fail", "core/pods/*"),
    "no creation": (without("CREATE"), "fail", "CREATE core/pods"),
    "no update": (without("UPDATE"), "fail", "UPDATE core/pods/*"),
    "no deletion": (without("DELETE"), "fail", "DELETE core/pods"),
    "scope": (in_rules(scope="Cluster"), "fail", "core/pods"),
    "other scope": (in_rules(scope="Namespaced"), "fail", "core/nodes"),
    "condition": (never, "fail", "matchCondition 'never'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_what_opens_a_registration_or_makes_it_lock_out_is_told(
    case: tuple[Callable[[Object], None], str, str],
) -> None:
    change, status, says = case
    value = installed()
    for webhook in value["webhooks"]:
        change(webhook)
    found = list(check_registration(value, Extra()))
    assert any(one.status == status and says in one.message for one in found), found
    if says == "not sent to any webhook":
        assert "pass" not in {one.status for one in found}


@pytest.mark.parametrize(
    "change",
    [
        in_rules(apiGroups=["*"]),
        in_rules(apiVersions=["*"]),
        in_rules(operations=["*"]),
        in_rules(scope="*"),
        in_rules(resources=["*/*"]),
        in_rules(resources=["*", "*/*"]),
        in_all("timeoutSeconds", 3),
        in_all("namespaceSelector", {}),
        in_all("objectSelector", None),
    ],
)
def test_what_sends_more_is_no_hole(change: Callable[[Object], None]) -> None:
    value = installed()
    for webhook in value["webhooks"]:
        change(webhook)
    found = [one.message for one in check_registration(value, Extra())]
    assert not [text for text in found if "not sent" in text or "Selector" in text]
    assert any(text.startswith("it covers every resource") for text in found)


def test_a_condition_that_was_made_for_other_resources_is_told() -> None:
    value = installed()
    by_name = {one["name"].split(".")[0]: one for one in value["webhooks"]}
    leases, nodes = by_name["leases"], by_name["nodes"]
    leases["rules"] += copy.deepcopy(nodes["rules"])
    found = [one.message for one in check_registration(value, Extra()) if one.status == "fail"]
    assert any("is not valid for nodes" in text for text in found), found


def test_what_a_strict_rule_needs_is_missed_only_where_it_is_on() -> None:
    strict = Extra.of(("events/about-own",))
    assert "fail" not in {one.status for one in check_registration(installed(), Extra())}
    found = [one.message for one in check_registration(installed(), strict)]
    assert any(text.startswith("not sent to any webhook: CREATE core/events") for text in found)
    assert "fail" not in {one.status for one in check_registration(installed(strict), strict)}


KEEP_NODES_READY = ("leases", "nodes", "pods")


def by_resource(found: Found, status: str, says: str) -> set[str]:
    """Return the webhooks that findings with a status and a text are about."""
    return {
        name.strip().partition(".")[0]
        for one, message in found
        if one == status and says in message
        for name in message.partition(": ")[0].split(",")
    }


def test_before_match_conditions_a_webhook_that_stops_nodes_is_a_failure(doctor: Doctor) -> None:
    doctor.cluster.register()
    doctor.cluster.version = "v1.27.16"
    assert by_resource(doctor("registration"), "fail", "nodes stop") == set(KEEP_NODES_READY)
    doctor.cluster.version = "v1.28.0"
    assert not by_resource(doctor("registration"), "fail", "nodes stop")


def test_before_match_conditions_what_is_rendered_for_it_is_a_warning(doctor: Doctor) -> None:
    value = webhook_configuration({**SERVICE, "caBundle": "YQ=="}, match_conditions=False)
    doctor.cluster.objects[f"{WEBHOOKS}/noderestrict"] = value
    doctor.cluster.version = "v1.27.16"
    found = doctor("registration")
    assert by_resource(found, "warn", "no rule on leases, nodes, pods holds") == set(
        KEEP_NODES_READY
    )
    assert {status for status, _ in found} == {"warn", "pass"}
    assert not [text for _, text in found if "matchConditions" in text]


def test_before_match_conditions_every_other_webhook_has_to_fail_closed() -> None:
    value = webhook_configuration(SERVICE, match_conditions=False)
    for webhook in value["webhooks"]:
        webhook["failurePolicy"] = "Ignore"
    found = [
        (one.status, one.message) for one in check_registration(value, Extra(), conditions=False)
    ]
    others = {one["name"].partition(".")[0] for one in value["webhooks"]} - set(KEEP_NODES_READY)
    assert by_resource(found, "warn", "hostile requests pass") == others
    audited = check_registration(value, Extra(), audited=True, conditions=False)
    assert {one.status for one in audited} == {"pass"}


def test_after_an_upgrade_the_registration_for_older_servers_is_told(doctor: Doctor) -> None:
    value = webhook_configuration({**SERVICE, "caBundle": "YQ=="}, match_conditions=False)
    doctor.cluster.objects[f"{WEBHOOKS}/noderestrict"] = value
    found = doctor("registration")
    assert by_resource(found, "warn", "hostile requests pass") == set(KEEP_NODES_READY)
    assert any("matchConditions" in text for status, text in found if status == "warn")


@pytest.mark.parametrize("version", ["v1.28.3", "v1.36.2"])
def test_conditions_without_optional_fields_do_no_harm_anywhere(
    doctor: Doctor, version: str
) -> None:
    value = webhook_configuration({**SERVICE, "caBundle": "YQ=="}, optional_fields=False)
    doctor.cluster.objects[f"{WEBHOOKS}/noderestrict"] = value
    doctor.cluster.version = version
    assert {status for status, _ in doctor("registration")} == {"pass"}
    nodes_webhook = value["webhooks"][1]
    nodes_webhook["matchConditions"][0]["expression"] += " && false"
    assert [message for status, message in doctor("registration") if status == "fail"]


def test_before_optional_fields_the_command_renders_for_that_version(doctor: Doctor) -> None:
    value = webhook_configuration({**SERVICE, "caBundle": "YQ=="}, optional_fields=False)
    value["webhooks"][0]["matchPolicy"] = "Exact"
    doctor.cluster.objects[f"{WEBHOOKS}/noderestrict"] = value
    for version, given in (("v1.28.3", True), ("v1.29.0", False)):
        doctor.cluster.version = version
        findings = json.loads(doctor.text("--output", "json"))
        (command,) = {one["command"] for one in findings if "matchPolicy" in one["message"]}
        assert ("--kubernetes-version=1.28" in command) is given


def test_before_match_conditions_the_command_renders_for_that_version(doctor: Doctor) -> None:
    doctor.cluster.register()
    for version, flag in (
        ("v1.27.16-eks-1", "--kubernetes-version=1.27"),
        ("v1.24.1", "--kubernetes-version=1.25"),
    ):
        doctor.cluster.version = version
        findings = json.loads(doctor.text("--output", "json"))
        commands = [one["command"] for one in findings if "nodes stop" in one["message"]]
        assert commands
        assert all(f"noderestrict render manifests {flag}\n" in one for one in commands)


def test_a_registration_that_is_not_there_is_named(doctor: Doctor) -> None:
    ((status, message),) = doctor("registration", "--webhook-configuration", "other")
    assert status == "fail"
    assert message.startswith("ValidatingWebhookConfiguration other ")


@pytest.mark.parametrize(
    ("days", "status", "says"),
    [(60, "pass", "valid for 59 days"), (20, "warn", "expires in 19 days")],
)
def test_a_served_certificate_is_verified_and_its_end_is_told(
    doctor: Doctor, days: int, status: str, says: str
) -> None:
    ca = create_authority("CA", lifetime=365 * DAY, now=dt.datetime.now(dt.UTC))
    cluster = doctor.cluster
    at = serve(doctor, ca, f"noderestrict.{NAMESPACE}.svc", days)
    with at as address:
        cluster.register(ca.certificate)
        ((found, message),) = doctor("certificate", "--connect", address)
        assert found == status
        assert says in message


def serve(doctor: Doctor, ca: Any, name: str, days: int = 60) -> Any:
    """Serve a certificate of an authority; to be entered."""
    pair = ca.issue((name,), lifetime=days * DAY, now=dt.datetime.now(dt.UTC))
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    doctor.cluster.objects["/api/v1/namespaces/noderestrict/secrets/tls"] = {
        "metadata": {"name": "tls"},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }
    return served(doctor.cluster, "tls")


def test_a_certificate_of_another_ca_or_for_another_name_is_not_verified(doctor: Doctor) -> None:
    ca = authority()
    with serve(doctor, ca, f"noderestrict.{NAMESPACE}.svc") as address:
        doctor.cluster.register(authority().certificate)
        found = doctor("certificate", "--connect", address)
    with serve(doctor, ca, "other.example.com") as address:
        doctor.cluster.register(ca.certificate)
        found += doctor("certificate", "--connect", address)
    assert found
    assert {status for status, _ in found} == {"fail"}
    assert all("caBundle does not verify" in text for _, text in found)


def test_what_stands_between_doctor_and_server_is_told(doctor: Doctor) -> None:
    cluster = doctor.cluster
    cluster.register()
    assert {one for one, _ in doctor("certificate")} == {"fail"}
    assert all("caBundle is empty" in text for _, text in doctor("certificate"))
    ca = authority()
    cluster.register(ca.certificate)
    ((status, message),) = doctor("certificate")
    assert status == "unknown"
    assert "not reachable from here" in message
    with serve(doctor, ca, "localhost") as address:
        pass
    # Nobody listens there any more.
    cluster.register(ca.certificate, {"url": f"https://{address}/validate"})
    found = doctor("certificate")
    assert {one for one, _ in found} == {"fail"}
    assert all("no answer" in text for _, text in found)


def test_a_loopback_address_may_be_that_of_another_machine(doctor: Doctor) -> None:
    cluster, ca = doctor.cluster, authority()
    with serve(doctor, ca, "127.0.0.1") as address:
        pass
    cluster.register(ca.certificate, {"url": f"https://127.0.0.1:{address.partition(':')[2]}/"})
    denied = 'admission webhook "leases.noderestrict.io" denied the request: no'
    cluster.lease = (403, {"message": denied})
    ((status, message),) = doctor("certificate")
    assert status == "warn"
    assert "the API server gets answers from its own machine" in message
    # Nobody answers there either.
    cluster.lease = (500, {"message": 'failed calling webhook "leases.noderestrict.io": refused'})
    assert {one for one, _ in doctor("certificate")} == {"fail"}


@pytest.mark.parametrize(
    ("ready", "status"),
    [([], "fail"), ([False], "fail"), ([True], "warn"), ([None, True], "pass"),
     ([True, False], "warn")],
)  # fmt: skip
def test_endpoints_that_are_ready_are_counted(
    doctor: Doctor, ready: list[bool | None], status: str
) -> None:
    doctor.cluster.register(b"ca")
    doctor.cluster.lists[ENDPOINTS] = [
        {"endpoints": [{"conditions": {} if one is None else {"ready": one}}]} for one in ready
    ]
    count = sum(one is not False for one in ready)
    service = f"Service {NAMESPACE}/noderestrict has {count} ready endpoint"
    assert [one for one, text in doctor("endpoints") if text.startswith(service)] == [status]


WEBHOOK = 'admission webhook "leases.noderestrict.io" denied the request: leases/own-name'
FAILED = 'failed calling webhook "leases.noderestrict.io": context deadline exceeded'


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ((500, FAILED), "fail", "did not answer"),
        ((403, "users is forbidden: cannot impersonate resource"), "unknown", "impersonate users/"),
    ],
)
def test_a_webhook_that_fails_or_a_right_that_is_missing_ends_the_check_of_rules(
    doctor: Doctor, answer: tuple[int, str], status: str, says: str
) -> None:
    code, message = answer
    doctor.cluster.lease = (code, {"message": message, "metadata": {"name": "x"}})
    doctor.cluster.register(b"ca")
    ((found, text),) = doctor("rules")
    assert found == status
    assert says in text
    asked = [one for one in doctor.cluster.heads if one[1].startswith(LEASES)]
    assert asked
    for method, path, headers in asked:
        assert (method, path) == ("POST", f"{LEASES}?dryRun=All")
        user, group = headers["Impersonate-User"], headers["Impersonate-Group"]
        assert (user, group) == ("system:node:noderestrict-doctor", "system:nodes")


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--enable-admission-plugins=A,NodeRestriction"], "warn", "NodeRestriction is enabled"),
        (["--enable-admission-plugins=A"], "pass", "NodeRestriction is disabled"),
        ([], "pass", "NodeRestriction is disabled"),
        (
            ["--enable-admission-plugins=NodeRestriction",
             "--disable-admission-plugins=NodeRestriction"],
            "pass", "NodeRestriction is disabled",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["command", "args"])
def test_the_in_tree_plugin_is_seen_in_the_flags_of_an_api_server(
    doctor: Doctor, flags: list[str], status: str, says: str, where: str
) -> None:
    doctor.cluster.add(API_SERVERS, api_server(where, *flags))
    ((found, message),) = doctor("in-tree plugin")
    assert found == status
    assert message.startswith(f"kube-apiserver-cp: {says}")


def api_server(where: str, *flags: str) -> Object:
    return {
        "metadata": {"name": "kube-apiserver-cp", "namespace": "kube-system"},
        "spec": {"containers": [{"name": "a", where: ["kube-apiserver", *flags]}]},
    }


@pytest.mark.parametrize(
    ("modes", "warned"),
    [("Node,RBAC", False), ("RBAC,Webhook", False), ("Webhook,RBAC", True), ("Webhook", False)],
)
def test_a_webhook_before_rbac_is_told(doctor: Doctor, modes: str, warned: bool) -> None:
    doctor.cluster.add(API_SERVERS, api_server("command", f"--authorization-mode={modes}"))
    found = doctor("authorizer")
    assert len(found) == warned
    assert all("Webhook precedes RBAC" in text for _, text in found)


def test_where_no_api_server_is_a_pod_its_flags_are_unknown(doctor: Doctor) -> None:
    ((status, message),) = doctor("in-tree plugin")
    assert status == "unknown"
    assert "flags are not visible from here" in message
    doctor.cluster.lease = (403, {"message": WEBHOOK})
    ((status, message),) = doctor("in-tree plugin")
    assert (status, message.partition(":")[0]) == ("pass", "NodeRestriction is disabled")


def needed() -> set[tuple[str, str, str]]:
    return {
        (SERVER, verb, resource)
        for rule in cluster_role()["rules"]
        for resource in rule.get("resources") or ()
        for verb in rule["verbs"]
    }


def test_a_server_needs_all_its_rights(doctor: Doctor) -> None:
    doctor.cluster.rights = needed()
    ((status, _),) = doctor("rights")
    assert status == "pass"
    service_accounts = "system:serviceaccounts"
    assert (
        SERVER, "system:authenticated", service_accounts, f"{service_accounts}:noderestrict"
    ) in doctor.cluster.groups  # fmt: skip
    for missing in (set(sorted(needed())[::2]), set(sorted(needed())[1::2])):
        doctor.cluster.rights = needed() - missing
        ((status, message),) = doctor("rights")
        assert status == "fail"
        told = message.partition(" cannot ")[2].split(", ")
        assert {text.partition("/")[0].partition(".")[0] for text in told} == {
            f"{verb} {resource}" for _, verb, resource in missing
        }


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "secrets"), ("create", "secrets"), ("create", "pods"), ("update", "nodes"),
        ("impersonate", "users"),
        ("update", "validatingwebhookconfigurations"),
        ("patch", "validatingwebhookconfigurations"),
        ("delete", "validatingwebhookconfigurations"),
    ],
)  # fmt: skip
def test_a_server_must_have_no_other_right(doctor: Doctor, verb: str, resource: str) -> None:
    doctor.cluster.rights = needed() | {(SERVER, verb, resource)}
    ((status, message),) = doctor("rights")
    assert status == "fail"
    assert f"{SERVER} can {verb} {resource}" in message


def test_the_rights_of_another_user_are_checked_where_it_is_named(doctor: Doctor) -> None:
    doctor.cluster.rights = {("alice", verb, resource) for _, verb, resource in needed()}
    assert doctor("rights", "--server-user", "alice")[0][0] == "pass"
    assert ("alice", "system:authenticated") in doctor.cluster.groups


def authorizers(*types: str, **webhook: Any) -> str:
    return yaml.safe_dump(
        {
            "kind": "AuthorizationConfiguration",
            "authorizers": [
                {"type": one, "name": one, **({"webhook": webhook} if one == "Webhook" else {})}
                for one in types
            ],
        }
    )


GOOD_TTLS = {"authorizedTTL": "1s", "unauthorizedTTL": "5s"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (authorizers("RBAC", "Webhook", **GOOD_TTLS), [("pass", "RBAC, Webhook")]),
        (authorizers("RBAC", "Node"), [("fail", "no authorizer is a Webhook")]),
        (authorizers("Webhook", "RBAC", **GOOD_TTLS), [("warn", "RBAC does not precede")]),
        (authorizers("Webhook", **GOOD_TTLS), [("warn", "RBAC does not precede")]),
        (
            authorizers("RBAC", "Webhook", "Node", **GOOD_TTLS),
            [("warn", "the Node authorizer is enabled as well")],
        ),
        (
            authorizers("RBAC", "Webhook", "AlwaysAllow", **GOOD_TTLS),
            [("fail", "AlwaysAllow")],
        ),
        (
            authorizers("RBAC", "Webhook", **{**GOOD_TTLS, "authorizedTTL": "5001ms"}),
            [("warn", "authorizedTTL is 5001ms")],
        ),
        (
            authorizers("RBAC", "Webhook"),
            [("warn", "authorizedTTL is unset"), ("warn", "unauthorizedTTL is unset")],
        ),
        (
            authorizers("RBAC", "Webhook", **{**GOOD_TTLS, "unauthorizedTTL": "soon"}),
            [("warn", "unauthorizedTTL is soon")],
        ),
        (
            yaml.safe_dump(authorization_configuration("/webhook.kubeconfig", agents=["true"])),
            [("pass", "Webhook, RBAC, Webhook, Webhook")],
        ),
        (
            yaml.safe_dump(authorization_configuration("/w")).replace("300s", "301s"),
            [("warn", "authorizedTTL is 301s")],
        ),
        ("", [("fail", "not an AuthorizationConfiguration")]),
        ("authorizers: 5", [("fail", "not an AuthorizationConfiguration")]),
        ("authorizers: [{}]", [("fail", "not an AuthorizationConfiguration")]),
    ],
)
def test_an_authorization_configuration_is_read(
    doctor: Doctor, tmp_path: Path, text: str, found: Found
) -> None:
    file = tmp_path / "authorization.yaml"
    file.write_text(text)
    told = doctor("authorizer", "--authorization-config", str(file))
    assert len(told) == len(found)
    for (status, message), (expected, says) in zip(told, found, strict=True):
        assert status == expected
        assert message.startswith(f"{file}: ")
        assert says in message


def test_the_rendered_authorization_configuration_passes(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "authorization.yaml"
    file.write_text(yaml.safe_dump(authorization_configuration("/etc/kubernetes/webhook.yaml")))
    ((status, _),) = doctor("authorizer", "--authorization-config", str(file))
    assert status == "pass"
