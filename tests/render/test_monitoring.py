"""What the alerts, the dashboard and the monitors say, and that it hangs together."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from tests.reference import described_metrics
from tests.render.test_manifests import FILES

ROOT = Path(__file__).parents[2]
SEVERITIES = {"critical", "warning", "info"}
#: What the descriptions of alerts may show, besides what an expression sums by.
TARGET_LABELS = {"instance", "job"}
#: Of the API server: what clients of webhooks see.
API_SERVER_METRICS = (
    "apiserver_admission_webhook_admission_duration_seconds",
    "apiserver_admission_webhook_rejection_count",
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_match_condition_exclusions_total",
)
#: Of every process, of those that we show.
PROCESS_METRICS = ("process_resident_memory_bytes", "process_cpu_seconds_total")
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def monitoring(kind: str) -> dict[str, Any]:
    """Return what is rendered of a kind."""
    objects = yaml.safe_load_all(FILES["components/monitoring/monitoring.yaml"])
    (found,) = (one for one in objects if one["kind"] == kind)
    assert isinstance(found, dict)
    return found


def alerts() -> list[dict[str, Any]]:
    """Return all alerting rules."""
    (group,) = monitoring("PrometheusRule")["spec"]["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


NAMES = [one["alert"] for one in alerts()]


def sections() -> dict[str, str]:
    """Return the runbooks, by the anchors that they have on a page."""
    parts = re.split(r"^## (.+)\n", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    titles, texts = parts[::2], parts[1::2]
    assert len(titles) == len(set(titles))
    return {title.lower(): text for title, text in zip(titles, texts, strict=True)}


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert set(alert) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Noderestrict([A-Z][a-z]+)+", alert["alert"])
    assert alert["labels"]["severity"] in SEVERITIES
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    for text in (notes["summary"], notes["description"]):
        assert text.endswith(".")
        assert "\n" not in text
    # A summary is the same for all alerts of a group.
    assert "{{" not in notes["summary"]
    assert len(notes["summary"]) < 100 < 5 * len(notes["description"])


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_a_description_shows_labels_that_its_alert_has(alert: dict[str, Any]) -> None:
    shown = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["description"]))
    summed = [
        set(map(str.strip, names.split(",")))
        for names in re.findall(r"^(?:sum|count) by \(([^)]*)\)", alert["expr"])
    ]
    if summed:
        assert shown <= summed[0]
    elif "absent(" in alert["expr"]:
        assert not shown
    elif "histogram_quantile" in alert["expr"]:
        assert shown == {"instance"}
    else:
        assert shown <= TARGET_LABELS | {"resource", "api_server", "rules"}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    pages = [one["annotations"]["runbook_url"].partition("#") for one in alerts()]
    assert {page for page, _, _ in pages} == {str(RUNBOOKS.relative_to(ROOT))}
    assert [anchor for _, _, anchor in pages] == [name.lower() for name in NAMES]
    # In the same order, so that both are easy to compare.
    assert list(sections()) == [anchor for _, _, anchor in pages]


@pytest.mark.parametrize(("anchor", "text"), sections().items(), ids=list(sections()))
def test_a_runbook_says_what_it_means_where_to_look_and_what_to_do(anchor: str, text: str) -> None:
    places = [text.find(f"- **{part}") for part in ("Impact:**", "Look at**", "Do:**")]
    assert places == sorted(places), anchor
    assert places[0] > 20


@pytest.mark.parametrize("url", ["https://docs.example.com/x", "https://docs.example.com/x/"])
def test_runbooks_are_where_the_documents_are_published(url: str, tmp_path: Path) -> None:
    assert main(["render", f"--docs-url={url}", str(tmp_path)]) == 0
    for file in ("components/monitoring/monitoring.yaml", "chart/templates/monitoring.yaml"):
        found = re.findall(r"runbook_url: (\S+)", (tmp_path / file).read_text())
        pages = [f"https://docs.example.com/x/runbooks.md#{name.lower()}" for name in NAMES]
        assert found == pages, file


@pytest.mark.parametrize("url", ["docs.example.com", "ftp://docs.example.com", "https://"])
def test_what_is_no_url_of_documents_is_refused(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["render", "--docs-url", url, str(tmp_path)])
    assert url in capsys.readouterr().err


def test_our_own_label_is_not_overwritten_by_that_of_the_scrape() -> None:
    # The operator calls the port "endpoint", as a metric of ours calls the path.
    (endpoint,) = monitoring("ServiceMonitor")["spec"]["endpoints"]
    assert {"action": "labeldrop", "regex": "endpoint"} in endpoint["relabelings"]


def test_each_way_to_run_has_one_monitor_that_finds_its_pods() -> None:
    for kind, workload, path in (
        ("ServiceMonitor", "service", "service/service.yaml"),
        ("PodMonitor", "pods", "overlays/control-plane/install/daemon-set.yaml"),
    ):
        wanted = monitoring(kind)["spec"]["selector"]["matchLabels"]
        objects = [one for one in yaml.safe_load_all(FILES[path]) if one]
        if workload == "pods":
            (labels,) = (
                one["spec"]["template"]["metadata"]["labels"]
                for one in objects
                if one["kind"] == "DaemonSet"
            )
            assert monitoring(kind)["spec"]["jobLabel"] in labels
            assert labels[monitoring(kind)["spec"]["jobLabel"]] == "noderestrict"
        else:
            (service,) = objects
            labels = service["metadata"]["labels"]
            assert service["metadata"]["name"] == "noderestrict"
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert {one["port"] for one in monitoring(kind)["spec"]["endpoints"]} <= ports
        assert wanted.items() <= labels.items()


DASHBOARD = json.loads(FILES["components/monitoring/dashboard.json"])
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Return what the alerts and the dashboard ask Prometheus."""
    targets = [target for panel in PANELS for target in panel["targets"]]
    return [one["expr"] for one in [*alerts(), *targets]]


def labels(expression: str) -> set[str]:
    """Return the labels that an expression selects or sums by."""
    selected = re.findall(r"(\w+)(?:=~|!=|!~|=)\"", expression)
    by = re.findall(r"by \(([^)]*)\)", expression)
    return set(selected) | {name.strip() for names in by for name in names.split(",")}


@pytest.mark.parametrize("expression", expressions())
def test_alerts_and_dashboard_use_metrics_and_labels_that_exist(expression: str) -> None:
    ours = {name: set(known) for name, _, known, _ in described_metrics()}
    # Prometheus adds these to what it scrapes.
    added = {"namespace", "pod", "instance", "job", "le"}
    names = re.findall(r"\b(?:noderestrict|apiserver|process)_\w+", expression)
    for name in names:
        metric = name.removesuffix("_bucket")
        assert metric in {*ours, *API_SERVER_METRICS, *PROCESS_METRICS}
        if metric in ours:
            assert labels(expression) <= ours[metric] | added
        if metric in PROCESS_METRICS:
            assert labels(expression) <= added
    assert names or "up{" in expression
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_a_legend_shows_labels_that_its_query_sums_by() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= labels(target["expr"]), target


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_says_what_it_shows_in_which_unit_and_what_is_too_much(
    panel: dict[str, Any],
) -> None:
    assert panel["description"].endswith(".")
    assert panel["type"] in {"stat", "timeseries", "table"}
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in {"short", "none", "s", "bytes", "reqps"}
    if any("_seconds" in target["expr"] for target in panel["targets"]):
        assert defaults["unit"] == ("none" if "cpu" in panel["targets"][0]["expr"] else "s")
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(values)
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_have_places_and_numbers_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert {panel["type"] for panel in PANELS} >= {"stat", "timeseries"}


def test_panels_of_our_metrics_follow_the_variables() -> None:
    names = [one["name"] for one in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "namespace", "instance"]
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            metrics = re.findall(r"\b((?:noderestrict|process)_\w+){([^}]*)}", target["expr"])
            found = re.findall(r"\b(?:noderestrict|process)_\w+", target["expr"])
            assert len(metrics) == len(found), target["expr"]
            for _, selected in metrics:
                assert {'namespace=~"$namespace"', 'instance=~"$instance"'} <= set(
                    selected.split(",")
                )
