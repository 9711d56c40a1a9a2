"""Each alert fires when it should, and only then: promtool evaluates the rendered rules."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import prometheus
from tests.render.test_monitoring import NAMES, alerts, monitoring

Object = dict[str, Any]
AT = {"job": "noderestrict", "instance": "10.0.0.1:9090", "pod": "noderestrict-a"}
OTHER = {**AT, "instance": "10.0.0.2:9090", "pod": "noderestrict-b"}
HOOK = {"job": "apiserver", "name": "nodes.noderestrict.io"}


def series(name: str, labels: dict[str, str], values: str) -> Object:
    """Return samples of every minute, in promtool's notation."""
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{text}}}", "values": values}


#: Two servers on which nothing is wrong, for an hour.
HEALTHY = [
    one
    for at in (AT, OTHER)
    for one in (
        series("up", at, "1x60"),
        series("noderestrict_self_test_ok", at, "1x60"),
        series("noderestrict_kubernetes_info", {**at, "known": "true"}, "1x60"),
        series("noderestrict_rule_mode", {**at, "rule": "nodes/labels", "mode": "enforce"}, "1x60"),
        series("noderestrict_internal_errors_total", at, "0x60"),
        series("noderestrict_background_failures_total", {**at, "exported_job": "a"}, "2x60"),
        series("noderestrict_shed_requests_total", {**at, "limit": "bytes"}, "7x60"),
        series("noderestrict_event_loop_lag_seconds_bucket", {**at, "le": "0.001"}, "0+1200x60"),
        series("noderestrict_event_loop_lag_seconds_bucket", {**at, "le": "+Inf"}, "0+1200x60"),
        series("noderestrict_certificate_expiry_timestamp_seconds", at, "7776000x60"),
        series("noderestrict_certificate_problem", at, "0x60"),
        series("noderestrict_credential_problem", at, "0x60"),
        series("noderestrict_registration_differences", at, "0x60"),
        series("noderestrict_registration_checked_timestamp_seconds", at, "0+60x60"),
        series("noderestrict_store_age_seconds", {**at, "resource": "pods"}, "30x60"),
        series("noderestrict_store_undecodable_objects", {**at, "resource": "pods"}, "0x60"),
        series("noderestrict_config_reloads_total", {**at, "result": "loaded"}, "0+1x60"),
        series("noderestrict_config_reloads_total", {**at, "result": "refused"}, "3x60"),
        series(
            "noderestrict_admission_decisions_total",
            {**at, "rule": "nodes/labels", "decision": "denied", "mode": "enforce"},
            "4x60",
        ),
        series(
            "noderestrict_admission_decisions_total",
            {**at, "rule": "nodes/labels", "decision": "denied", "mode": "audit"},
            "0+5x60",
        ),
        series(
            "noderestrict_admission_decisions_total",
            {**at, "rule": "", "decision": "allowed", "mode": "enforce"},
            "0+90x60",
        ),
    )
] + [
    series("apiserver_admission_webhook_fail_open_count", HOOK, "2x60"),
    series(
        "apiserver_admission_webhook_rejection_count",
        {**HOOK, "error_type": "no_error"},
        "0+3x60",
    ),
    series(
        "apiserver_admission_webhook_rejection_count",
        {"job": "apiserver", "name": "pods.example.com", "error_type": "calling_webhook_error"},
        "0+3x60",
    ),
]


@dataclass
class Case:
    """A trouble, and the alert that it causes.

    Attributes:
        alert: its name.
        trouble: series that replace the healthy ones of the same name and labels, or are added.
        at: the first minute at which it fires.
        labels: of the alert, besides its severity.
        value: as its description shows it.
        gone: names of metrics that nobody exposes.
    """

    alert: str
    trouble: list[Object]
    at: int
    labels: dict[str, str] = field(default_factory=dict)
    value: str = ""
    gone: tuple[str, ...] = ()


def _denied(values: str, **labels: str) -> Object:
    about = {"rule": "pods/evict", "decision": "denied", "mode": "enforce", **labels}
    return series("noderestrict_admission_decisions_total", {**AT, **about}, values)


CASES = [
    Case("NoderestrictDown", [], 2, gone=("up",)),
    Case("NoderestrictDown", [series("up", one, "0x60") for one in (AT, OTHER)], 2),
    Case("NoderestrictReplicaDown", [series("up", AT, "0x60")], 15, AT),
    Case("NoderestrictSelfTestFailed", [series("noderestrict_self_test_ok", AT, "0x60")], 1, AT),
    Case("NoderestrictNotReached",
         [series("apiserver_admission_webhook_rejection_count",
                 {**HOOK, "error_type": "calling_webhook_error"}, "0x20 1x40")],
         23, {"name": "nodes.noderestrict.io"}, "1"),
    Case("NoderestrictPassedUnseen",
         [series("apiserver_admission_webhook_fail_open_count", HOOK, "2x20 3x40")], 21,
         {"name": "nodes.noderestrict.io"}, "1"),
    # The very first one is the first sample of its series.
    Case("NoderestrictPassedUnseen",
         [series("apiserver_admission_webhook_fail_open_count",
                 {**HOOK, "name": "pods.noderestrict.io"}, "_x20 1x40")], 20,
         {"name": "pods.noderestrict.io"}, "1"),
    Case("NoderestrictRegistrationChanged",
         [series("noderestrict_registration_differences", AT, "2x60")], 0, AT, "2"),
    Case("NoderestrictRegistrationUnseen",
         [series("noderestrict_registration_checked_timestamp_seconds", AT, "60x60")], 12, AT,
         "11m 0s"),
    Case("NoderestrictRequestsRefused", [_denied("0x20 1x40")], 21, {"rule": "pods/evict"},
         "1"),
    Case("NoderestrictRequestsRefused", [_denied("_x20 1x40")], 20, {"rule": "pods/evict"},
         "1"),
    Case("NoderestrictModesDiffer",
         [series("noderestrict_rule_mode", {**OTHER, "rule": "nodes/labels", "mode": "enforce"},
                 "_x60"),
          series("noderestrict_rule_mode", {**OTHER, "rule": "nodes/labels", "mode": "audit"},
                 "1x60")],
         15, {"rule": "nodes/labels"}),
    Case("NoderestrictKubernetesUnknown",
         [series("noderestrict_kubernetes_info",
                 {**AT, "known": "false", "api_server": "1.99", "rules": "1.37"}, "1x60")],
         10, {**AT, "known": "false", "api_server": "1.99", "rules": "1.37"}),
    Case("NoderestrictInternalErrors",
         [series("noderestrict_internal_errors_total", AT, "0x5 1x50")], 6, AT, "1"),
    Case("NoderestrictBackgroundJobFails",
         [series("noderestrict_background_failures_total", {**AT, "exported_job": "a"}, "2+1x60")],
         3, {"instance": AT["instance"]}, "4"),
    Case("NoderestrictOverloaded",
         [series("noderestrict_shed_requests_total", {**AT, "limit": "bytes"}, "0+120x60")], 6,
         {"instance": AT["instance"], "limit": "bytes"}, "2"),
    Case("NoderestrictEventLoopBlocked",
         [series("noderestrict_event_loop_lag_seconds_bucket", {**AT, "le": "0.001"}, "0+100x60"),
          series("noderestrict_event_loop_lag_seconds_bucket", {**AT, "le": "0.1"}, "0+1200x60")],
         6, {"instance": AT["instance"]}, "98.92ms"),
    Case("NoderestrictCertificateExpires",
         [series("noderestrict_certificate_expiry_timestamp_seconds", AT, "262800x70")], 60, AT,
         "3d 0h 0m 0s"),
    Case("NoderestrictCertificateProblem",
         [series("noderestrict_certificate_problem", AT, "1x60")], 10, AT),
    Case("NoderestrictCredentialProblem",
         [series("noderestrict_credential_problem", AT, "1x60")], 5, AT),
    Case("NoderestrictStoreStale",
         [series("noderestrict_store_age_seconds", {**AT, "resource": "pods"}, "150x60")], 1,
         {**AT, "resource": "pods"}, "2m 30s"),
    Case("NoderestrictObjectUndecodable",
         [series("noderestrict_store_undecodable_objects", {**AT, "resource": "pods"}, "3x60")], 5,
         {**AT, "resource": "pods"}, "3"),
    Case("NoderestrictConfigurationRefused",
         [series("noderestrict_config_reloads_total", {**AT, "result": "refused"}, "3x4 4x50")],
         5, {**AT, "result": "refused"}),
]  # fmt: skip


def mixed(case: Case) -> list[Object]:
    """Return the healthy series with those of a case in their places."""
    changed = {one["series"]: one for one in case.trouble}
    kept = [
        changed.pop(one["series"], one)
        for one in HEALTHY
        if one["series"].partition("{")[0] not in case.gone
    ]
    return [*kept, *changed.values()]


def annotations(rule: Object, labels: Object, value: str) -> Object:
    """Return the annotations of a rule as Prometheus fills them in."""

    def filled(text: str) -> str:
        text = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: str(labels[found[1]]), text)
        return re.sub(r"{{ \$value[^}]*}}", value, text)

    return {name: filled(text) for name, text in rule["annotations"].items()}


def complaints(folder: Path, input_: list[Object], asked: list[Object]) -> str:
    """Return what promtool has against the rules, "" for nothing."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(monitoring("PrometheusRule")["spec"]))
    test = {"interval": "1m", "input_series": input_, "alert_rule_test": asked}
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yaml").write_text(yaml.safe_dump(whole))
    tool = [prometheus.command("promtool"), "test", "rules", "test.yaml"]
    done = subprocess.run(tool, cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    assert {case.alert for case in CASES} == set(NAMES)


def test_the_rules_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(monitoring("PrometheusRule")["spec"]))
    tool = [prometheus.command("promtool"), "check", "rules", "--lint=all", "--lint-fatal"]
    done = subprocess.run([*tool, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(NAMES)} rules found" in done.stdout


def test_no_alert_fires_while_nothing_is_wrong(tmp_path: Path) -> None:
    asked = [
        {"alertname": name, "eval_time": f"{minute}m", "exp_alerts": []}
        for name in NAMES
        # Counts before the first sample are new ones for as long as a range reaches back.
        for minute in (21, 59)
    ]
    assert complaints(tmp_path, HEALTHY, asked) == ""


@pytest.mark.parametrize("case", CASES, ids=[case.alert for case in CASES])
def test_an_alert_fires_once_something_is_wrong_for_long_enough(case: Case, tmp_path: Path) -> None:
    (rule,) = (one for one in alerts() if one["alert"] == case.alert)
    fires = {
        "exp_labels": {**rule["labels"], **case.labels},
        "exp_annotations": annotations(rule, case.labels, case.value),
    }
    asked: list[Object] = [
        {"alertname": case.alert, "eval_time": f"{case.at}m", "exp_alerts": [fires]}
    ]
    if case.at > 0:
        before = {"alertname": case.alert, "eval_time": f"{case.at - 1}m", "exp_alerts": []}
        asked.insert(0, before)
    assert complaints(tmp_path, mixed(case), asked) == ""
