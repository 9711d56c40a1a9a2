"""Metrics that stay few, whoever asks."""

from noderestrict.telemetry.metrics import OTHER, Exposition, Metrics


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
