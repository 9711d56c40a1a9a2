"""A Grafana dashboard over our metrics and the API server's own of webhooks."""

from typing import Any

Object = dict[str, Any]

_OURS = "noderestrict"
#: Of the API server, which tells what clients of the webhook saw.
API_SERVER_METRICS = (
    "apiserver_admission_webhook_admission_duration_seconds",
    "apiserver_admission_webhook_rejection_count",
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_match_condition_exclusions_total",
)
WEBHOOK = r'name=~".+[.]noderestrict[.]io"'


def _rate(metric: str, by: str, selector: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def _quantile(metric: str, by: str, selector: str = "") -> str:
    buckets = _rate(f"{metric}_bucket", f"le, {by}", selector)
    return f"histogram_quantile(0.99, {buckets})"


#: title, unit, and (expression, legend) of each panel.
_PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Refusals by rule",
        "reqps",
        (
            (
                _rate(f"{_OURS}_admission_decisions_total", "rule, mode", 'decision="denied"'),
                "{{rule}} ({{mode}})",
            ),
        ),
    ),
    (
        "Reviews by resource",
        "reqps",
        ((_rate(f"{_OURS}_admission_decisions_total", "resource, subresource"),
          "{{resource}}/{{subresource}}"),),
    ),
    (
        "Time to answer, p99",
        "s",
        (
            (_quantile(f"{_OURS}_request_duration_seconds", "endpoint"), "server {{endpoint}}"),
            (_quantile(API_SERVER_METRICS[0], "name", WEBHOOK), "API server {{name}}"),
        ),
    ),
    (
        "Authorizer",
        "reqps",
        ((_rate(f"{_OURS}_authorization_decisions_total", "decision"), "{{decision}}"),),
    ),
    (
        "Refused by the API server",
        "reqps",
        (
            (_rate(API_SERVER_METRICS[1], "name, error_type", WEBHOOK), "{{name}} {{error_type}}"),
            (_rate(API_SERVER_METRICS[2], "name", WEBHOOK), "passed unseen: {{name}}"),
        ),
    ),
    (
        "Proven harmless, and not asked for",
        "reqps",
        ((_rate(API_SERVER_METRICS[3], "name, operation", WEBHOOK), "{{name}} {{operation}}"),),
    ),
    (
        "Overload and errors",
        "reqps",
        (
            (_rate(f"{_OURS}_shed_requests_total", "limit"), "shed: {{limit}}"),
            (_rate(f"{_OURS}_rejected_requests_total", "code"), "HTTP {{code}}"),
            (_rate(f"{_OURS}_internal_errors_total", "job"), "internal errors"),
        ),
    ),
    (
        "Age of stores",
        "s",
        ((f"max by (resource) ({_OURS}_store_age_seconds)", "{{resource}}"),),
    ),
    (
        "Live look-ups",
        "reqps",
        ((_rate(f"{_OURS}_live_lookups_total", "resource, result"), "{{resource}} {{result}}"),),
    ),
    (
        "Event loop lag, p99",
        "s",
        ((_quantile(f"{_OURS}_event_loop_lag_seconds", "pod"), "{{pod}}"),),
    ),
    (
        "Registration: fields not as rendered",
        "short",
        ((f"max by (pod) ({_OURS}_registration_differences)", "{{pod}}"),),
    ),
    (
        "Certificate left",
        "s",
        ((f"min by (pod) ({_OURS}_certificate_expiry_timestamp_seconds) - time()", "{{pod}}"),),
    ),
)  # fmt: skip


def dashboard() -> Object:
    """Return the dashboard, for a data source that Grafana asks for."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
                for index, (expression, legend) in enumerate(targets)
            ],
        }
        for number, (title, unit, targets) in enumerate(_PANELS)
    ]
    return {
        "uid": _OURS,
        "title": "noderestrict",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }
