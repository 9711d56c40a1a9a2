"""The Grafana dashboard: panels declared in short, and their JSON.

The format is Grafana's dashboard schema, version 39: https://grafana.com/docs/grafana/latest/.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from noderestrict.render.load import Object

#: The servers that the variables select.
_OURS = 'namespace=~"$namespace",instance=~"$instance"'
#: What API servers expose about our webhooks.
_HOOKS = 'name=~".+[.]noderestrict[.]io"'
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24
_DAY = 86400
_GREEN, _YELLOW, _RED = "green", "yellow", "red"


@dataclass(frozen=True, slots=True)
class _Query:
    """What Prometheus is asked.

    Attributes:
        expression: in PromQL.
        legend: of each series.
    """

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class _Panel:
    """One panel.

    Attributes:
        title: in a few words.
        description: what it shows, and what is normal.
        unit: one of Grafana's.
        queries: whose results it shows.
        kind: Grafana's type of panel.
        steps: value from which on it has a colour; below the first one it has the base colour.
        base: the colour of the lowest values.
        text: of a stat panel: ``value``, or ``name`` for the legend.
    """

    title: str
    description: str
    unit: str
    queries: tuple[_Query, ...]
    kind: str = "timeseries"
    steps: tuple[tuple[float, str], ...] = ()
    base: str = _GREEN
    text: str = "value"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of panels under a heading, all of the same width.

    Attributes:
        title: the heading.
        panels: of the row.
        width: of each, in 24ths.
        height: of each.
    """

    title: str
    panels: tuple[_Panel, ...]
    width: int = 8
    height: int = 8


def _rate(metric: str, by: str, labels: str = "") -> str:
    selected = ",".join(filter(None, (_OURS, labels)))
    return f"sum by ({by}) (rate({metric}{{{selected}}}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str, selected: str = _OURS) -> str:
    rate = f"rate({metric}_bucket{{{selected}}}[$__rate_interval])"
    return f"histogram_quantile({quantile}, sum by (le, {by}) ({rate}))"


def _of_hooks(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{_HOOKS}}}[$__rate_interval]))"


_DECISIONS = "noderestrict_admission_decisions_total"
_REFUSED = 'decision="denied",mode="enforce"'

_ROWS = (
    _Row(
        "Now",
        (
            _Panel(
                "Servers",
                "Servers that are scraped and refuse a known-bad review.",
                "short",
                (_Query(f"sum(noderestrict_self_test_ok{{{_OURS}}})", "servers"),),
                "stat",
                ((1, _GREEN),),
                _RED,
            ),
            _Panel(
                "Version",
                "Version of the servers, and in brackets the release whose rules apply. More "
                "than one is normal only while servers are replaced.",
                "none",
                (
                    _Query(
                        f"count by (version, rules) (noderestrict_build_info{{{_OURS}}})",
                        "{{version}} ({{rules}})",
                    ),
                ),
                "stat",
                text="name",
            ),
            _Panel(
                "Rules not enforced",
                "Rules that only warn or report on at least one server.",
                "short",
                (
                    _Query(
                        "count(count by (rule) (noderestrict_rule_mode"
                        f'{{{_OURS},mode=~"warn|audit"}})) or vector(0)',
                        "rules",
                    ),
                ),
                "stat",
                ((1, _YELLOW),),
            ),
            _Panel(
                "Refused",
                "Requests that were denied in the time range of the dashboard.",
                "short",
                (
                    _Query(
                        f"sum(increase({_DECISIONS}{{{_OURS},{_REFUSED}}}[$__range])) or vector(0)",
                        "requests",
                    ),
                ),
                "stat",
                ((1, _YELLOW),),
            ),
            _Panel(
                "Oldest store",
                "Age of the store that is furthest behind. One hears from the API server at least "
                "once a minute; after 90 s live lookups confirm what it allows.",
                "s",
                (_Query(f"max(noderestrict_store_age_seconds{{{_OURS}}})", "age"),),
                "stat",
                ((75, _YELLOW), (90, _RED)),
            ),
            _Panel(
                "Certificate expires in",
                "Time until the first of the served certificates expires.",
                "s",
                (
                    _Query(
                        "min(noderestrict_certificate_expiry_timestamp_seconds"
                        f"{{{_OURS}}}) - time()",
                        "left",
                    ),
                ),
                "stat",
                ((1 * _DAY, _YELLOW), (7 * _DAY, _GREEN)),
                _RED,
            ),
        ),
        width=4,
        height=4,
    ),
    _Row(
        "Decisions",
        (
            _Panel(
                "Denials by rule",
                "Requests that break a rule, by its mode: only those of enforce were denied.",
                "reqps",
                (
                    _Query(
                        _rate(_DECISIONS, "rule, mode", 'decision="denied"'), "{{rule}} ({{mode}})"
                    ),
                ),
            ),
            _Panel(
                "Reviews by resource",
                "What API servers ask about.",
                "reqps",
                (
                    _Query(
                        _rate(_DECISIONS, "resource, subresource"), "{{resource}} {{subresource}}"
                    ),
                ),
            ),
            _Panel(
                "Authorizer",
                "Answers to SubjectAccessReviews. Zero without --authorizer.",
                "reqps",
                (
                    _Query(
                        _rate("noderestrict_authorization_decisions_total", "decision"),
                        "{{decision}}",
                    ),
                ),
            ),
            _Panel(
                "Modes of rules",
                "How many servers run each rule in which mode. A rule has one mode on all of them.",
                "short",
                (
                    _Query(
                        f'count by (rule, mode) (noderestrict_rule_mode{{{_OURS},mode!="absent"}})',
                        "{{rule}} {{mode}}",
                    ),
                ),
                "table",
            ),
        ),
        width=12,
    ),
    _Row(
        "Answers",
        (
            _Panel(
                "Response time, p99",
                "From the end of a request to its answer, as servers measure it, and from call to "
                "answer, as API servers do. Their timeout is three seconds.",
                "s",
                (
                    _Query(
                        _quantile(0.99, "noderestrict_request_duration_seconds", "endpoint"),
                        "server: {{endpoint}}",
                    ),
                    _Query(
                        _quantile(
                            0.99,
                            "apiserver_admission_webhook_admission_duration_seconds",
                            "name",
                            _HOOKS,
                        ),
                        "API server: {{name}}",
                    ),
                ),
                steps=((1, _YELLOW), (3, _RED)),
            ),
            _Panel(
                "Rejected and failed open",
                "Requests that API servers denied because of our webhooks, by kind of error, and "
                "those that passed unseen because failurePolicy is Ignore.",
                "reqps",
                (
                    _Query(
                        _of_hooks(
                            "apiserver_admission_webhook_rejection_count", "name, error_type"
                        ),
                        "{{name}} {{error_type}}",
                    ),
                    _Query(
                        _of_hooks("apiserver_admission_webhook_fail_open_count", "name"),
                        "passed unseen: {{name}}",
                    ),
                ),
            ),
            _Panel(
                "Skipped by match conditions",
                "Requests about which API servers need not ask.",
                "reqps",
                (
                    _Query(
                        _of_hooks(
                            "apiserver_admission_match_condition_exclusions_total",
                            "name, operation",
                        ),
                        "{{name}} {{operation}}",
                    ),
                ),
            ),
            _Panel(
                "Overload and errors",
                "Requests that were not judged: over a limit, malformed, or ended by a defect.",
                "reqps",
                (
                    _Query(_rate("noderestrict_shed_requests_total", "limit"), "over: {{limit}}"),
                    _Query(_rate("noderestrict_rejected_requests_total", "code"), "HTTP {{code}}"),
                    _Query(
                        _rate("noderestrict_internal_errors_total", "instance"),
                        "defects: {{instance}}",
                    ),
                ),
            ),
            _Panel(
                "Event loop lag, p99",
                "How late a server gets to what it has to do. More than 50 ms delays all answers.",
                "s",
                (
                    _Query(
                        _quantile(0.99, "noderestrict_event_loop_lag_seconds", "instance"),
                        "{{instance}}",
                    ),
                ),
                steps=((0.05, _RED),),
            ),
            _Panel(
                "Connections",
                "Open connections of the webhook and the metrics port; at most 2,048 and 64.",
                "short",
                (
                    _Query(
                        f"sum by (instance, port) (noderestrict_open_connections{{{_OURS}}})",
                        "{{instance}} {{port}}",
                    ),
                ),
            ),
        ),
    ),
    _Row(
        "Cluster",
        (
            _Panel(
                "Store age",
                "Time since each store last equalled the cluster, on the server furthest behind.",
                "s",
                (
                    _Query(
                        f"max by (resource) (noderestrict_store_age_seconds{{{_OURS}}})",
                        "{{resource}}",
                    ),
                ),
                steps=((90, _RED),),
            ),
            _Panel(
                "Objects in stores",
                "Size of the stores, which the memory of a server depends on.",
                "short",
                (
                    _Query(
                        f"max by (resource) (noderestrict_store_objects{{{_OURS}}})",
                        "{{resource}}",
                    ),
                ),
            ),
            _Panel(
                "Live lookups",
                "Lookups that confirm a denial, or what a stale store allows.",
                "reqps",
                (
                    _Query(
                        _rate("noderestrict_live_lookups_total", "resource, result"),
                        "{{resource}} {{result}}",
                    ),
                ),
            ),
            _Panel(
                "Registration: fields that differ",
                "How many fields of the installed registration differ from the rendered one.",
                "short",
                (
                    _Query(
                        f"max by (instance) (noderestrict_registration_differences{{{_OURS}}})",
                        "{{instance}}",
                    ),
                ),
                steps=((1, _RED),),
            ),
            _Panel(
                "Memory",
                "Resident memory of each server. The rendered Deployment limits it to 1 GiB.",
                "bytes",
                (
                    _Query(
                        "max by (instance) (process_resident_memory_bytes"
                        f'{{{_OURS},job="noderestrict"}})',
                        "{{instance}}",
                    ),
                ),
            ),
            _Panel(
                "Processor time",
                "Processors that each server uses.",
                "none",
                (
                    _Query(
                        _rate("process_cpu_seconds_total", "instance", 'job="noderestrict"'),
                        "{{instance}}",
                    ),
                ),
            ),
        ),
    ),
)


def dashboard() -> str:
    """Return the dashboard, in JSON."""
    value = {
        "uid": "noderestrict",
        "title": "noderestrict",
        "description": "Node isolation by webhooks: what is refused, how fast, and by what state.",
        "tags": ["kubernetes", "noderestrict"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": list(_variables())},
        "panels": list(_laid_out(_ROWS)),
    }
    return json.dumps(value, indent=2) + "\n"


def _variables() -> Iterator[Object]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    chosen = ""
    for name in ("namespace", "instance"):
        query = f"label_values(noderestrict_build_info{chosen}, {name})"
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            # Whenever the time range changes: servers come and go.
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            # Also what has no such label, where Prometheus is not the operator's.
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }
        chosen = f'{{{name}=~"${name}"}}'


def _laid_out(rows: Sequence[_Row]) -> Iterator[Object]:
    """Yield all panels with their places."""
    number, top = 1, 0
    for row in rows:
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        number, top, left = number + 1, top + 1, 0
        for panel in row.panels:
            if left + row.width > _COLUMNS:
                left, top = 0, top + row.height
            place = {"x": left, "y": top, "w": row.width, "h": row.height}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            number, left = number + 1, left + row.width
        top += row.height


def _panel(panel: _Panel) -> Object:
    colours: list[Object] = [{"color": panel.base, "value": None}]
    colours += [{"color": colour, "value": value} for value, colour in panel.steps]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": colours},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
    }
    if panel.kind == "timeseries":
        style = "line" if panel.steps else "off"
        defaults["min"] = 0
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 10,
            "thresholdsStyle": {"mode": style},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                **_asked(panel.kind),
            }
            for number, query in enumerate(panel.queries)
        ],
        **_transformed(panel.kind),
    }


def _asked(kind: str) -> Object:
    """Return how often a query is evaluated: over the time range, or once."""
    if kind == "timeseries":
        return {"range": True}
    return {"instant": True, "range": False, **({"format": "table"} if kind == "table" else {})}


def _options(panel: _Panel) -> Object:
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "table":
        return {"showHeader": True, "sortBy": [{"displayName": "rule", "desc": False}]}
    return {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": panel.text,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }


def _transformed(kind: str) -> Object:
    if kind != "table":
        return {}
    renamed = {"Value": "servers"}
    organized = {"excludeByName": {"Time": True}, "renameByName": renamed}
    return {"transformations": [{"id": "organize", "options": organized}]}
