"""Alerts and dashboard on what real servers expose: the API server's metrics, and ours."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderestrict.render.registration import webhook_configuration
from tests.e2e import prometheus
from tests.e2e.control_plane import ISSUER, APIError
from tests.e2e.test_admission import token_request
from tests.e2e.test_registration import (
    LEASES,
    PODS,
    Registered,
    configured,
    lease,
    pod,
    until_refused,
)
from tests.e2e.test_registration import registered as registered  # a fixture
from tests.render.test_monitoring import (
    API_SERVER_METRICS,
    DASHBOARD,
    PANELS,
    alerts,
    expressions,
    labels,
)

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
#: What Grafana puts in for its variables.
VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$namespace": ".*",
    "$instance": ".*",
}


#: Some scrapes succeeded one after the other.
SCRAPED = 'sum_over_time(up{{job="{job}"}}[1m]) > 5'


@pytest.fixture(scope="module")
def watched(registered: Registered) -> Registered:
    """A cluster in which all that the dashboard shows has happened."""
    node = registered.control_plane.node("watched")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}}
    registered.admin.create(ACCOUNTS, account)
    elsewhere = pod("elsewhere", "another")
    elsewhere["spec"] |= {"serviceAccountName": "web", "automountServiceAccountToken": False}
    elsewhere = registered.admin.create(PODS, elsewhere)
    client = registered.client_config(registered.enforcing)
    with configured(registered, webhook_configuration(client)):
        # One refused, one that takes a live lookup, and one that the conditions keep from us.
        until_refused(node)
        with pytest.raises(APIError, match="noderestrict"):
            node.create(f"{ACCOUNTS}/web/token", token_request(elsewhere, ISSUER))
        node.create(LEASES, lease("watched"))
    away = {**client, "url": "https://127.0.0.1:1/validate"}
    with configured(registered, webhook_configuration(away, failure_policy="Ignore")):
        end = time.monotonic() + 30
        while "webhook_fail_open_count{" not in exposed(registered):
            node.request("PUT", f"{LEASES}/another", lease("another"))
            assert time.monotonic() < end
    with configured(registered, webhook_configuration(away)):
        end = time.monotonic() + 30
        while 'error_type="calling_webhook_error"' not in exposed(registered):
            with pytest.raises(APIError):
                node.request("PUT", f"{LEASES}/a-third", lease("a-third"))
            assert time.monotonic() < end
    return registered


def test_the_api_server_has_the_metrics_and_labels_that_are_asked_for(watched: Registered) -> None:
    text = exposed(watched)
    for expression in expressions():
        for metric in API_SERVER_METRICS:
            if metric in expression:
                series = re.findall(rf"^{metric}(?:_bucket)?{{(.*?)}} ", text, re.MULTILINE)
                assert any('name="leases.noderestrict.io"' in one for one in series), metric
                known = {label for one in series for label in re.findall(r"(\w+)=\"", one)}
                assert labels(expression) <= known, expression


@pytest.fixture(scope="module")
def scraped(
    watched: Registered, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[prometheus.Prometheus]:
    """Prometheus, after it has scraped both servers twice and more."""
    folder = tmp_path_factory.mktemp("prometheus")
    node = watched.control_plane.node("watched")
    client = watched.client_config(watched.enforcing)
    jobs = ("noderestrict", "apiserver")
    with (
        prometheus.running(folder, configuration(watched, folder)) as running,
        configured(watched, webhook_configuration(client)),
    ):
        end = time.monotonic() + prometheus.SECONDS
        while not all(running.query(SCRAPED.format(job=job)) for job in jobs):
            assert time.monotonic() < end, running.query("up")
            # Rates of nothing are no numbers.
            until_refused(node)
            time.sleep(0.2)
        yield running


def configuration(registered: Registered, folder: Path) -> dict[str, Any]:
    """Return what makes Prometheus scrape our server and the API server."""
    admin, control_plane = registered.admin, registered.control_plane
    for name, data in (
        ("ca", admin.ca.certificate), ("crt", admin.pair.certificate), ("key", admin.pair.key)
    ):  # fmt: skip
        (folder / name).write_bytes(data)
    files = {"ca_file": "ca", "cert_file": "crt", "key_file": "key"}
    tls = {name: str(folder / file) for name, file in files.items()}
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "noderestrict",
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{registered.enforcing.metrics_port}"],
                        "labels": {"namespace": "noderestrict", "pod": "noderestrict-a"},
                    }
                ],
            },
            {
                "job_name": "apiserver",
                "scheme": "https",
                "tls_config": tls,
                "static_configs": [{"targets": [f"127.0.0.1:{control_plane.port}"]}],
            },
        ],
    }


QUERIES = [
    (panel["title"], target["refId"], target["expr"])
    for panel in PANELS
    for target in panel["targets"]
]


@pytest.mark.parametrize(
    ("title", "ref", "expression"), QUERIES, ids=[f"{title} {ref}" for title, ref, _ in QUERIES]
)
def test_every_query_of_the_dashboard_has_data(
    scraped: prometheus.Prometheus, title: str, ref: str, expression: str
) -> None:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    found = scraped.query(expression)
    assert found, expression
    # Where nothing is divided by nothing, each is a number.
    values = [float(one["value"][1]) for one in found]
    assert any(value == value for value in values), values
    (legend,) = (
        target["legendFormat"]
        for panel in PANELS
        if panel["title"] == title
        for target in panel["targets"]
        if target["refId"] == ref
    )
    for shown in re.findall(r"{{(\w+)}}", legend):
        assert any(shown in one["metric"] for one in found), (shown, found)


def test_the_variables_of_the_dashboard_have_values(scraped: prometheus.Prometheus) -> None:
    asked = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    for variable in asked:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
        assert found is not None
        expression = found[1].replace("$namespace", ".*")
        assert all(one["metric"][found[2]] for one in scraped.query(expression))
        assert scraped.query(expression)


def test_prometheus_evaluates_every_alert(scraped: prometheus.Prometheus) -> None:
    for alert in alerts():
        scraped.query(alert["expr"])
    # The test has made that happen.
    (refused,) = (one for one in alerts() if one["alert"] == "NoderestrictRequestsRefused")
    rules = {one["metric"]["rule"] for one in scraped.query(refused["expr"])}
    assert any(rule.startswith("leases/") for rule in rules), rules


def test_prometheus_gets_openmetrics(scraped: prometheus.Prometheus) -> None:
    (info,) = scraped.query("noderestrict_build_info")
    assert info["metric"]["feature_gates"]
    assert not scraped.query('{__name__=~"noderestrict_.+_created"}')


def exposed(registered: Registered) -> str:
    """Return the API server's metrics."""
    return str(registered.admin.get("/metrics")["message"])
