"""An HTML page for people, which loads nothing else.

The overview is plain HTML. A script of the page's own draws the paths of the node that is chosen,
since those of all nodes would be far too many at once.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from noderestrict.exposure.findings import Compared, ExposedNode, Findings, Thing
from noderestrict.exposure.remedies import told
from noderestrict.exposure.reports import fall, told_how, told_request
from noderestrict.exposure.steps import TITLES
from noderestrict.policy.text import printable
from noderestrict.replay.page import counted, page, shown

_MOST_CHANGES = 100
_STYLE = """
:root { --fill: #f3f4f6; --edge: #6b7280; --low: #2f6db5; }
@media (prefers-color-scheme: dark) { :root { --fill: #1f2430; --edge: #9aa3b2; --low: #7db3f2; } }
a { color: var(--low); } a:visited { color: var(--low); }
:focus-visible { outline: 3px solid var(--low); outline-offset: 2px; }
.scroll th { overflow-wrap: normal; } .scroll th[scope=row] { min-width: 8.5rem; }
 .nodes th, .nodes td
  { min-width: 0 !important; }
caption { text-align: left; padding-bottom: .25rem; opacity: .8; }
.filters { margin: 1rem 0; align-items: end; } .filters label { display: grid; gap: .15rem; }
.filters .check { display: flex; gap: .4rem; align-items: center; }
input, button { font: inherit; }
.map { display: flex; flex-wrap: wrap; gap: 4px; padding: 0; list-style: none; margin: .5rem 0; }
.map a { display: block; width: 24px; height: 24px; border-radius: 4px; background: var(--fill);
  border: 2px solid var(--edge); box-sizing: border-box; }
.map .falls { background: var(--bad); border-color: var(--bad); }
.map .part { background: linear-gradient(to top, var(--low) var(--part), var(--fill) 0); }
.map .control { border-style: dashed; border-color: var(--bad); background: var(--fill); }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; padding: 0; list-style: none; }
.key span { display: inline-block; width: 14px; height: 14px; border-radius: 3px;
  margin-right: .4rem; border: 2px solid var(--edge); box-sizing: border-box;
  vertical-align: -2px; }
.key .falls { background: var(--bad); border-color: var(--bad); }
.key .part { background: linear-gradient(to top, var(--low) 50%, var(--fill) 0); }
.key .control { border-style: dashed; border-color: var(--bad); }
.nodes { width: 100%; } th.n { text-align: right; }
.nodes tr[aria-current] { background: var(--soft); }
.tall { max-height: 28rem; overflow: auto; } .tall thead th { position: sticky; top: 0;
  background: Canvas; }
.drawing { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
.drawing svg { display: block; margin: 0 auto; }
.drawing rect { fill: var(--fill); stroke: var(--edge); stroke-width: 1.5; }
.drawing .start rect { stroke: var(--low); stroke-width: 2.5; }
.drawing .end rect { stroke: var(--bad); stroke-width: 2.5; }
.drawing path { fill: none; stroke: var(--edge); stroke-width: 1.5; }
.drawing .used { stroke: var(--bad); stroke-width: 2; }
.drawing text { fill: CanvasText; font-size: 12px; }
.drawing .kind { font-size: 11px; opacity: .85; }
.drawing marker path { fill: var(--edge); stroke: none; }
ol.path { padding-left: 1.25rem; } ol.path li { margin: .15rem 0; }
[hidden] { display: none !important; }
@media (max-width: 40rem) { .sums li { flex: 1 1 30%; }
  .nodes th, .nodes td { padding-right: .5rem; }
  .nodes .wide { display: none; } }
@media print { .filters, .map, .key { display: none; } .tall { max-height: none;
  overflow: visible; }
  body { max-width: none; } details { break-inside: avoid; } .drawing { overflow: visible; }
  .drawing svg { max-width: 100%; height: auto; } }
"""


def report(findings: Findings, *, colour: bool) -> str:  # noqa: ARG001 (the page has its own)
    """Return the counts, the set-ups, all nodes, and what could not be seen."""
    sums = {
        "workers": len(findings.nodes),
        "lead to cluster-admin": findings.falling,
        "control planes": len(findings.control_planes),
        "Secrets are known": findings.secrets,
        "service accounts": findings.service_accounts,
    }
    nodes = (*findings.nodes, *findings.control_planes)
    body = (
        f"{counted(sums)}{_about(findings)}{_set_ups(findings)}{_changes(findings)}"
        f"<h2 id=nodes>Nodes</h2>{_filters()}{_map(nodes, findings)}{_table(nodes)}"
        "<section id=detail aria-labelledby=chosen tabindex=-1><h2 id=chosen>Paths</h2>"
        "<p id=hint>Choose a node to see its paths.</p><noscript><p>The paths need JavaScript, "
        "which this page brings along. --output table and --output json show them "
        "without.</p></noscript><div id=paths></div></section>"
        f'<script type="application/json" id=data>{_data(nodes, findings)}</script>'
    )
    script = files(__package__).joinpath("page.js").read_text()
    return page("noderestrict: exposure", "What falls with a node", body, _STYLE, script)


def _about(findings: Findings) -> str:
    lines = [f"Kubernetes {findings.kubernetes}."] if findings.kubernetes else []
    lines.append(f"Set-up {findings.set_up}: {findings.why_set_up}.")
    lines += findings.notes
    lines += (
        f"Not seen: {one.what}: {one.why}. Hidden by that: {one.hidden}."
        for one in findings.not_seen
    )
    return "".join(f'<p class="note">{shown(line)}</p>' for line in lines)


def _set_ups(findings: Findings) -> str:
    rows = "".join(_set_up(one, findings) for one in findings.set_ups)
    return (
        '<h2>Set-ups</h2><div class="scroll" role=region tabindex=0 aria-label="Set-ups">'
        "<table><caption>Workers, by who holds nodes and agents</caption><thead><tr>"
        "<th scope=col>Set-up</th><th scope=col class=n>Lead to cluster-admin</th>"
        "<th scope=col class=n>In steps, at least</th><th scope=col class=n>Nodes’ worth of "
        "Secrets, mean</th><th scope=col class=n>Worst</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _set_up(one: Compared, findings: Findings) -> str:
    chosen = " <b>(this page)</b>" if one.set_up == findings.set_up else ""
    kind = "bad" if one.falling else "good"
    steps = "–" if one.fewest_steps is None else one.fewest_steps
    return (
        f"<tr><th scope=row>{shown(one.set_up)}{chosen}<br>"
        f'<span class="note">{shown(one.title)}</span></th>'
        f'<td class="n"><span class="{kind}">{one.falling:,} of {len(findings.nodes):,}</span></td>'
        f'<td class="n">{steps}</td><td class="n">{one.nodes_worth:.1f}</td>'
        f'<td class="n">{one.worst_nodes_worth:.1f}</td></tr>'
    )


def _changes(findings: Findings) -> str:
    if findings.changes is None:
        return ""
    if not findings.changes:
        return "<h2>Since the baseline</h2><p>Nothing changed.</p>"
    kinds = {"worse": "bad", "new": "open", "better": "good"}
    rows = "".join(
        f"<tr><th scope=row>{shown(one.node)}</th>"
        f'<td><span class="{kinds.get(one.change, "note")}">{shown(one.change)}</span></td>'
        f"<td>{shown(fall(one.before))}</td><td>{shown(fall(one.after))}</td></tr>"
        for one in findings.changes[:_MOST_CHANGES]
    )
    more = len(findings.changes) - _MOST_CHANGES
    rest = f"<p>… and {more:,} more.</p>" if more > 0 else ""
    return (
        '<h2>Since the baseline</h2><div class="scroll" role=region tabindex=0 '
        'aria-label="Since the baseline"><table><thead><tr><th scope=col>Node</th>'
        "<th scope=col>Change</th><th scope=col>Before</th><th scope=col>Now</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{rest}"
    )


def _filters() -> str:
    return (
        '<form class="filters" id=filters hidden><label>Node <input type=search id=by-node '
        "autocomplete=off></label><label>Namespace on a path <select id=by-namespace>"
        "<option value=''>any</option></select></label><label>Service account on a path "
        "<select id=by-account><option value=''>any</option></select></label>"
        '<label class="check"><input type=checkbox id=by-fall> Leads to cluster-admin</label>'
        "<p id=count role=status></p></form>"
    )


def _map(nodes: Iterable[ExposedNode], findings: Findings) -> str:
    tiles = []
    for index, node in enumerate(nodes):
        part = round(100 * node.secrets / findings.secrets) if findings.secrets else 0
        if node.control_plane:
            kind = "control"
        elif node.cluster_steps is not None:
            kind = "falls"
        else:
            kind = "part"
        tiles.append(
            f'<li><a class="{kind}" href="#detail" data-node="{index}" style="--part:{part}%" '
            f'title="{shown(node.name)}: {_falls(node)}" '
            f'aria-label="{shown(node.name)}: {_falls(node)}"></a></li>'
        )
    return (
        f'<ul class="map" aria-label="All nodes, worst first">{"".join(tiles)}</ul>'
        '<ul class="key"><li><span class="falls"></span>leads to cluster-admin</li>'
        '<li><span class="part"></span>share of all Secrets that fall</li>'
        '<li><span class="control"></span>control plane</li></ul>'
    )


def _falls(node: ExposedNode) -> str:
    if node.control_plane:
        return "control plane"
    steps = node.cluster_steps
    if steps is not None:
        return f"cluster-admin in {steps} step{'s' * (steps != 1)}"
    return f"{node.secrets:,} Secrets"


def _table(nodes: Iterable[ExposedNode]) -> str:
    rows = "".join(_row(index, node) for index, node in enumerate(nodes))
    return (
        '<div class="scroll tall" role=region tabindex=0 aria-label="Nodes, worst first">'
        '<table class="nodes"><caption>Workers, worst first, then control planes; each number '
        "leads to its paths</caption><thead><tr><th scope=col>Node</th>"
        '<th scope=col class="n">Cluster-admin</th><th scope=col class="n">Secrets</th>'
        '<th scope=col class="n">Nodes’ worth</th><th scope=col class="n wide">Accounts</th>'
        '<th scope=col class="n wide">Other nodes</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(index: int, node: ExposedNode) -> str:
    def link(text: str, part: str, kind: str = "") -> str:
        name = f'class="{kind}" ' if kind else ""
        return f'<a {name}href="#detail" data-node="{index}" data-part="{part}">{text}</a>'

    steps = node.cluster_steps
    fall_text = "no" if steps is None else f"{steps} step{'s' * (steps != 1)}"
    role = ' <span class="note">(control plane)</span>' if node.control_plane else ""
    return (
        f'<tr data-row="{index}"><th scope=row>{link(shown(node.name), "cluster")}{role}</th>'
        f'<td class="n">{link(fall_text, "cluster", "good" if steps is None else "bad")}</td>'
        f'<td class="n">{link(f"{node.secrets:,}", "secrets")}</td>'
        f'<td class="n">{node.nodes_worth:.1f}</td>'
        f'<td class="n wide">{link(f"{node.service_accounts:,}", "serviceaccounts")}</td>'
        f'<td class="n wide">{link(f"{node.nodes:,}", "nodes")}</td></tr>'
    )


class _Table:
    """Values, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._indexes: dict[Any, int] = {}

    def index(self, key: Any, value: Any) -> int:
        """Return the index of a value that is added if its key is new."""
        if key not in self._indexes:
            self._indexes[key] = len(self.values)
            self.values.append(value)
        return self._indexes[key]


def _data(nodes: Iterable[ExposedNode], findings: Findings) -> str:
    """Return what the script needs, as JSON that is safe in HTML."""
    things, texts = _Table(), _Table()

    def thing(one: Thing) -> int:
        value = [one.kind, printable(one.namespace), printable(one.name)]
        return things.index((one.kind, one.namespace, one.name), value)

    def text(one: str) -> int:
        return texts.index(one, printable(one))

    value: Mapping[str, Any] = {
        "titles": TITLES,
        "steps": [
            [
                thing(step.start),
                thing(step.end),
                step.by,
                step.costs,
                [text(told_request(request)) for request in step.requests],
                text(told_how(step)),
            ]
            for step in findings.steps
        ],
        "nodes": [
            {
                "name": printable(node.name),
                "secrets": node.secrets,
                "objects": node.objects,
                "ways": [
                    [
                        thing(way.to), way.count, way.steps, way.path,
                        [text(told(one)) for one in way.closed_by],
                    ]
                    for way in node.ways
                ],
            }
            for node in nodes
        ],
        "things": things.values,
        "texts": texts.values,
    }  # fmt: skip
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
