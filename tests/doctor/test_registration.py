"""Any change of the registration is reported."""

import asyncio
import base64
import copy
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from noderestrict.agents.file import Agent, User
from noderestrict.cluster.connection import ClusterError
from noderestrict.doctor.checks.registration import check_registration
from noderestrict.doctor.holes import holes
from noderestrict.doctor.registration_differences import registration_differences
from noderestrict.doctor.watch import SECONDS, Expected, watch_registration
from noderestrict.policy.extra import Extra
from noderestrict.render.registration import Registration, parse_registration
from noderestrict.serving.certificate_sources import CertificateFiles
from noderestrict.telemetry.metrics import Metrics
from tests.serving.tls import authority

Object = dict[str, Any]
EXTRA = Extra()
SERVICE = Registration({"service": {"name": "noderestrict", "namespace": "noderestrict",
                                    "path": "/validate"}})  # fmt: skip
EXPECTED = SERVICE.value(EXTRA)
CA = authority().certificate
DEEP = b"[" * 9995 + b"]" * 9995


def encoded(*bundle: bytes) -> str:
    return base64.b64encode(b"".join(bundle)).decode()


def installed() -> Object:
    """Return the registration as an API server gives it back."""
    value = copy.deepcopy(EXPECTED)
    value["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [{"a": 1}]}
    for webhook in value["webhooks"]:
        webhook["clientConfig"]["caBundle"] = encoded(CA)
    return value


def first(value: Object) -> Object:
    webhook: Object = value["webhooks"][0]
    return webhook


def put(field: str, new: Any) -> Callable[[Object], None]:
    return lambda value: first(value).__setitem__(field, new)


def never(value: Object) -> None:
    first(value)["matchConditions"].append({"name": "never", "expression": "false"})


def loosened(value: Object) -> None:
    first(value)["matchConditions"][0]["expression"] = "false"


def elsewhere(value: Object) -> None:
    first(value)["clientConfig"] = {"url": "https://e/", "caBundle": encoded(CA)}


def other_path(value: Object) -> None:
    first(value)["clientConfig"]["service"]["path"] = "/livez"


def second_ca(value: Object) -> None:
    first(value)["clientConfig"]["caBundle"] = encoded(CA, authority().certificate)


def added(value: Object) -> None:
    value["webhooks"].append({**first(value), "name": "z.example.com"})


def renamed(value: Object) -> None:
    first(value)["name"] = "pods.example.com"


CHANGES: dict[str, Callable[[Object], None]] = {
    "object selector": put("objectSelector", {"matchLabels": {"nothing": "matches"}}),
    "object expression": put(
        "objectSelector", {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
    ),
    "namespace selector": put("namespaceSelector", {"matchLabels": {"a": "b"}}),
    "failure policy": put("failurePolicy", "Ignore"),
    "timeout": put("timeoutSeconds", 1),
    "match policy": put("matchPolicy", "Exact"),
    "side effects": put("sideEffects", "NoneOnDryRun"),
    "review versions": put("admissionReviewVersions", ["v1beta1", "v1"]),
    "no rules": put("rules", []),
    "operations": lambda value: first(value)["rules"][0].update(operations=["CREATE"]),
    "resources": lambda value: first(value)["rules"][0].update(resources=["pods"]),
    "scope": lambda value: first(value)["rules"][0].update(scope="Cluster"),
    "versions": lambda value: first(value)["rules"][0].update(apiVersions=["v2"]),
    "a condition more": never,
    "a condition less": lambda value: first(value)["matchConditions"].pop(),
    "another condition": loosened,
    "no condition": put("matchConditions", None),
    "another address": elsewhere,
    "another path": other_path,
    "a CA more": second_ca,
    "another CA": lambda value: first(value)["clientConfig"].update(
        caBundle=encoded(authority().certificate)
    ),
    "no CA": lambda value: first(value)["clientConfig"].pop("caBundle"),
    "no PEM": lambda value: first(value)["clientConfig"].update(caBundle="?"),
    "a webhook less": lambda value: value["webhooks"].pop(0),
    "a webhook more": added,
    "another name": renamed,
    "no webhook": lambda value: value.update(webhooks=None),
    "a field that is not known yet": put("skipEverything", True),
}


def test_what_was_rendered_and_installed_has_no_difference() -> None:
    assert registration_differences(installed(), EXPECTED, CA) == []
    assert registration_differences(installed(), EXPECTED) == []
    moved = installed()
    moved["webhooks"].reverse()
    for webhook in moved["webhooks"]:
        webhook["matchConditions"].reverse()
    assert registration_differences(moved, EXPECTED, CA) == []


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_is_a_difference(change: Callable[[Object], Any]) -> None:
    value = installed()
    change(value)
    assert registration_differences(value, EXPECTED, CA)


def test_an_api_server_that_knows_no_match_conditions_has_none() -> None:
    value = installed()
    for webhook in value["webhooks"]:
        del webhook["matchConditions"]
    assert registration_differences(value, EXPECTED, CA, conditions=False) == []


def test_policy_flags_change_what_is_expected() -> None:
    extra = Extra.of(["events/about-own"])
    found = registration_differences(installed(), SERVICE.value(extra), CA)
    assert "events.noderestrict.io" in {one.within for one in found}


def test_what_a_flag_describes_is_what_was_rendered() -> None:
    audited = Registration({"url": "https://127.0.0.1:8443/validate"}, "Ignore", 2, "other")
    for one in (SERVICE, audited):
        name, _, text = one.flag().partition("=")
        assert name == "--expected-registration"
        assert parse_registration(text).value(EXTRA) == one.value(EXTRA)


def test_a_flag_describes_a_registration_without_match_conditions() -> None:
    old = Registration(SERVICE.client_config, match_conditions=False)
    parsed = parse_registration(old.flag().partition("=")[2])
    assert parsed == old
    value = parsed.value(EXTRA)
    policies = {one["name"].split(".")[0]: one["failurePolicy"] for one in value["webhooks"]}
    assert {name for name, policy in policies.items() if policy == "Ignore"} == {
        "leases", "nodes", "pods",
    }  # fmt: skip
    assert "matchConditions" not in SERVICE.flag()


def test_without_match_conditions_a_changed_failure_policy_is_still_a_difference() -> None:
    old = Registration(SERVICE.client_config, match_conditions=False).value(EXTRA)
    value = copy.deepcopy(old)
    for webhook in value["webhooks"]:
        webhook["clientConfig"]["caBundle"] = encoded(CA)
    assert registration_differences(value, old, CA, conditions=False) == []
    (pods,) = (one for one in value["webhooks"] if one["name"].startswith("pods."))
    pods["failurePolicy"] = "Fail"
    (found,) = registration_differences(value, old, CA, conditions=False)
    assert str(found).endswith('failurePolicy is "Fail", rendered as "Ignore"')


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"clientConfig": {}}', '{"clientConfig": {"url": 1}}',
     '{"clientConfig": {"url": "https://a", "service": {}}}',
     '{"clientConfig": {"url": "https://a"}, "failurePolicy": "fail"}',
     '{"clientConfig": {"url": "https://a"}, "webhooks": []}', "[" * 5000],
)  # fmt: skip
def test_a_flag_that_is_not_a_registration_is_reported_on_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"registration|clientConfig|failurePolicy") as error:
        parse_registration(text)
    assert "\n" not in str(error.value)


def test_the_doctor_reports_what_it_does_not_examine_field_by_field() -> None:
    for change in ("another address", "side effects", "a field that is not known yet"):
        value = installed()
        CHANGES[change](value)
        assert any(finding.status == "fail" for finding in check_registration(value, EXTRA))
    for change in ("a condition less", "no condition"):
        value = installed()
        CHANGES[change](value)
        assert {finding.status for finding in check_registration(value, EXTRA)} == {"warn", "pass"}
    value = installed()
    added(value)
    assert any("was added" in finding.message for finding in check_registration(value, EXTRA))
    assert {one.status for one in check_registration(installed(), EXTRA)} == {"pass"}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_patches_of_all_findings_in_their_order_put_back_what_is_expected(
    change: Callable[[Object], Any],
) -> None:
    value = installed()
    change(value)
    found = list(check_registration(value, EXTRA, EXPECTED, CA))
    assert {"fail"} <= {one.status for one in found} <= {"fail", "pass"}
    patch = [operation for one in found for operation in one.patch]
    mended = jsonpatch.apply_patch(value, json.loads(json.dumps(patch)))
    assert registration_differences(mended, EXPECTED, CA) == []


def test_a_webhook_for_an_agent_is_no_difference_and_shifts_none() -> None:
    value = installed()
    agents = {**first(value), "name": "x.agents.noderestrict.io"}
    value["webhooks"].insert(0, agents)
    assert registration_differences(value, EXPECTED, CA) == []
    value["webhooks"][1]["timeoutSeconds"] = 1
    (found,) = registration_differences(value, EXPECTED, CA)
    assert found.path == "/webhooks/1/timeoutSeconds"


def test_a_difference_that_a_hole_explains_is_told_once() -> None:
    for change in ("failure policy", "timeout", "operations", "object selector"):
        value = installed()
        CHANGES[change](value)
        found = check_registration(value, EXTRA, EXPECTED, CA)
        assert len([one for one in found if one.status == "fail"]) == 1, change


def test_an_empty_ca_bundle_is_right_where_the_system_has_the_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots.crt"
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    value = installed()
    for webhook in value["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    roots.write_bytes(authority().certificate)
    assert len(registration_differences(value, EXPECTED, CA)) == len(value["webhooks"])
    roots.write_bytes(authority().certificate + CA)
    assert registration_differences(value, EXPECTED, CA) == []
    # A certificate from a public CA comes without ca.crt.
    roots.write_bytes(b"")
    assert registration_differences(value, EXPECTED, None) == []
    assert registration_differences(value, EXPECTED, b"") == []


class Cluster:
    """Gives the registration that a test has put there."""

    def __init__(self) -> None:
        self.answer: Object | bytes | ClusterError = installed()

    async def get(self, path: str, *, seconds: float) -> bytes:
        assert path.endswith("/validatingwebhookconfigurations/noderestrict")
        if isinstance(self.answer, ClusterError):
            raise self.answer
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()


class Watched:
    """A watch that looks once for each step of a test."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster()
        self.metrics = Metrics()
        self.waited: list[float] = []
        self._go = asyncio.Semaphore(0)
        self._looked = asyncio.Semaphore(0)
        self._expected = Expected(EXPECTED, CertificateFiles.in_directory(folder).ca)
        self.task: asyncio.Future[None] | None = None

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self._looked.release()
        await self._go.acquire()

    async def look(self) -> float:
        """Return how many differences the metric shows after the next look."""
        self._go.release()
        if self.task is None:
            await self._go.acquire()
            self.task = asyncio.ensure_future(
                watch_registration(
                    self.cluster,  # type: ignore[arg-type]
                    self._expected,
                    self.metrics,
                    sleep=self._sleep,
                )
            )
        await self._looked.acquire()
        return self.value("noderestrict_registration_differences")

    def value(self, name: str) -> float:
        found = self.metrics.registry.get_sample_value(name)
        assert found is not None
        return found


@pytest.fixture
async def watched(tmp_path: Path) -> Any:
    (tmp_path / "ca.crt").write_bytes(CA)
    one = Watched(tmp_path)
    yield one
    if one.task is not None:
        one.task.cancel()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_each_change_is_shown_at_the_next_look_and_ends_with_it(
    watched: Watched, change: Callable[[Object], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "noderestrict")
    assert await watched.look() == 0
    value = installed()
    change(value)
    watched.cluster.answer = value
    assert await watched.look() > 0
    assert await watched.look() > 0
    told = [
        record for record in caplog.records if "differs from the rendered one" in record.message
    ]
    assert len(told) == 1
    assert told[0].levelno == logging.CRITICAL
    watched.cluster.answer = installed()
    assert await watched.look() == 0
    assert "matches the rendered one again" in caplog.records[-1].message
    # Three looks a minute, each with the time for an answer.
    assert set(watched.waited) == {SECONDS}
    assert SECONDS <= 20


async def test_a_registration_that_is_gone_or_cannot_be_read_is_a_difference(
    watched: Watched,
) -> None:
    for answer in (
        ClusterError("not found", 404),
        b'{"metadata": {"managedFields": ' + DEEP + b'}, "webhooks": []}',
        b'{"webhooks": ' + DEEP + b"}",
        b"{}",
        b'{"webhooks": 1}',
        b"\xff",
    ):
        watched.cluster.answer = answer
        assert await watched.look() > 0
        assert watched.task is not None
        assert not watched.task.done()


async def test_managed_fields_of_any_depth_hide_nothing_and_are_no_difference(
    watched: Watched,
) -> None:
    value = installed()
    watched.cluster.answer = json.dumps(value).encode().replace(b'[{"a": 1}]', DEEP)
    assert await watched.look() == 0
    never(value)
    watched.cluster.answer = json.dumps(value).encode().replace(b'[{"a": 1}]', DEEP)
    assert await watched.look() == 1


async def test_what_cannot_be_asked_changes_nothing_but_the_time_of_the_last_look(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("noderestrict.doctor.watch.time.time", lambda: clock[0])
    value = installed()
    never(value)
    watched.cluster.answer = value
    before = await watched.look()
    for code in (0, 403, 500):
        clock[0] += 100
        watched.cluster.answer = ClusterError(f"error {code}", code)
        assert await watched.look() == before
    name = "noderestrict_registration_checked_timestamp_seconds"
    assert watched.value(name) == 1000
    assert sum("cannot read" in record.message for record in caplog.records) == 3
    watched.cluster.answer = value
    assert await watched.look() == before
    assert watched.value(name) == 1300


async def test_without_a_ca_file_any_bundle_is_accepted_and_a_bad_file_is_reported(
    watched: Watched, tmp_path: Path
) -> None:
    value = installed()
    second_ca(value)
    watched.cluster.answer = value
    assert await watched.look() == 1
    (tmp_path / "ca.crt").unlink()
    assert await watched.look() == 0
    (tmp_path / "ca.crt").write_text("nothing")
    assert await watched.look() == 1


async def test_webhooks_of_agents_are_compared_with_the_policies_as_they_are_now(
    watched: Watched,
) -> None:
    agents: list[Agent] = []
    found = replace(watched._expected, agents=lambda: SERVICE.agent_webhooks(agents))
    watched._expected = found
    assert await watched.look() == 0
    agents.append(Agent("driver", (User(service_account="storage/driver"),)))
    # A policy that nobody is asked about.
    assert await watched.look() == 1
    value = installed()
    (webhook,) = json.loads(json.dumps(SERVICE.agent_webhooks(agents)))
    webhook["clientConfig"]["caBundle"] = value["webhooks"][0]["clientConfig"]["caBundle"]
    value["webhooks"].append(webhook)
    watched.cluster.answer = value
    assert await watched.look() == 0
    webhook["rules"][0]["operations"].remove("DELETE")
    assert await watched.look() == 1


def test_a_webhook_for_agents_hides_no_hole_for_nodes() -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"],
                  "resources": ["*/*"], "scope": "*"}  # fmt: skip
    webhook = {"name": "all.agents.noderestrict.io", "rules": [everything]}
    found = list(holes({"webhooks": [webhook]}, Extra(), audited=False, conditions=True))
    assert [one.finding.message[:27] for one in found] == ["not sent to any webhook: CR"]
