"""Metrics that stay few, whoever asks."""

import platform

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from noderestrict import __version__
from noderestrict.policy.releases import Release
from noderestrict.policy.settings import Settings
from noderestrict.telemetry.metrics import OTHER, Exposition, Metrics, content_type

#: As Prometheus 3 asks for metrics.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_names_that_callers_choose_make_no_new_series() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.decisions.count(f"r{number}", f"s{number}", "CREATE", "", "allowed", "enforce")
    lines = [
        line
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("noderestrict_admission_decisions_total{")
    ]
    assert len(lines) == 1
    assert f'resource="{OTHER}"' in lines[0]
    assert lines[0].endswith(" 1000.0")
    assert len(metrics.decisions.counts) == 1


def test_a_decision_is_counted_by_what_it_was_about() -> None:
    metrics = Metrics()
    metrics.decisions.count("pods", "status", "UPDATE", "pods/status-own", "denied", "enforce")
    assert (
        'noderestrict_admission_decisions_total{decision="denied",mode="enforce",'
        'operation="UPDATE",resource="pods",rule="pods/status-own",subresource="status"} 1.0'
    ) in metrics.exposition().decode()


def test_every_metric_is_ours_or_of_the_process_and_has_a_unit_where_it_measures() -> None:
    families = list(Metrics().registry.collect())
    assert len([one for one in families if one.type == "histogram"]) > 1
    for family in families:
        assert family.name.startswith(("noderestrict_", "process_", "python_"))
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes"))


def test_two_processes_of_metrics_do_not_share_a_registry() -> None:
    one, other = Metrics(), Metrics()
    one.internal_errors.inc()
    assert "noderestrict_internal_errors_total 0.0" in other.exposition().decode()


def test_metrics_are_made_once_a_second_however_often_they_are_asked_for() -> None:
    metrics = Metrics()
    now = 100.0
    exposition = Exposition(metrics, lambda: now)
    first = exposition.text()
    metrics.internal_errors.inc()
    now += 0.9
    assert exposition.text() is first
    now += 0.2
    assert b"noderestrict_internal_errors_total 1.0" in exposition.text()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROMETHEUS, OPEN),
        ("application/openmetrics-text", OPEN),
        ("application/openmetrics-text; version=2.0.0; escaping=dots", OPEN),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", TEXT),
        ("application/openmetrics-text;version=x", TEXT),
        ("text/html", TEXT),
        ("*/*", TEXT),
        ("", TEXT),
    ],
)
def test_a_client_gets_openmetrics_if_it_asks_for_that(accept: str, expected: str) -> None:
    assert content_type(accept) == expected


def test_both_forms_have_the_same_series_and_none_of_when_a_counter_was_made() -> None:
    metrics = Metrics()
    metrics.decisions.count("pods", "status", "UPDATE", "pods/status-own", "denied", "enforce")
    metrics.validate_seconds.observe(0.1)

    def series(text: str, parse: object) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        assert callable(parse)
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in parse(text)
            for sample in family.samples
        }

    text = series(metrics.exposition(TEXT).decode(), text_string_to_metric_families)
    opened = metrics.exposition(OPEN).decode()
    assert opened.endswith("# EOF\n")
    assert text == series(opened, openmetrics.text_string_to_metric_families)
    assert len(text) > 50
    assert not [name for name, _ in text if name.endswith("_created")]


def test_each_form_is_made_once_a_second() -> None:
    metrics = Metrics()
    exposition = Exposition(metrics, lambda: 100.0)
    first = exposition.text(OPEN)
    assert exposition.text(TEXT) != first
    metrics.internal_errors.inc()
    assert exposition.text(OPEN) is first


def test_the_build_shows_its_version_its_rules_and_its_gates() -> None:
    metrics = Metrics()
    metrics.policy.settings = Settings.for_version(
        31, {"PodCertificateRequest": True, "ClusterTrustBundle": True}, release=Release(31, 4)
    )
    labels = (
        'feature_gates="ClusterTrustBundle,PodCertificateRequest",'
        f'python_version="{platform.python_version()}",rules="1.31.4",version="{__version__}"'
    )
    assert f"noderestrict_build_info{{{labels}}} 1.0\n" in metrics.exposition().decode()
