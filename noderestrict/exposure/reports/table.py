"""A table for terminals: set-ups side by side, nodes worst first, and what leads to the cluster."""

from collections.abc import Iterator, Sequence

from noderestrict.exposure.findings import Compared, ExposedNode, Findings, Way
from noderestrict.exposure.remedies import told
from noderestrict.exposure.reports import fall, told_steps
from noderestrict.policy.lines import WIDTH, shortened, wrapped
from noderestrict.policy.text import printable

_RED, _GREEN, _PLAIN = "\033[31m", "\033[32m", "\033[0m"
_MOST_NODES = 20
_MOST_PATHS = 10
_NAMED = 3
_SET_UPS = ("SET-UP", "LEAD TO CLUSTER-ADMIN", "IN STEPS", "NODES' WORTH, MEAN", "WORST")
_NODES = ("NODE", "CLUSTER-ADMIN", "SECRETS", "NODES' WORTH", "ACCOUNTS", "OTHER NODES")


def report(findings: Findings, *, colour: bool) -> str:
    """Return the tables, the shortest paths, and the counts as the last line."""
    lines = _table([_SET_UPS, *(_set_up(one, findings) for one in findings.set_ups)])
    lines += ["", *_overview("Workers", findings.nodes, colour=colour)]
    if findings.control_planes:
        lines += ["", *_overview("Control planes", findings.control_planes, colour=False)]
        lines += wrapped("Whoever has one of these has the cluster.", 0)
    lines += _paths(findings)
    if findings.changes is not None:
        lines += ["", "Since the baseline:" if findings.changes else "Nothing changed."]
        for change in findings.changes[:_MOST_NODES]:
            text = f"{change.change:<6} {change.node}: {fall(change.before)} → {fall(change.after)}"
            lines += wrapped(text, 2, 9)
        lines += _more(len(findings.changes) - _MOST_NODES, "node")
    lines.append("")
    for note in findings.notes:
        lines += wrapped(note, 0)
    for missing in findings.not_seen:
        lines += wrapped(f"Not seen: {missing.what}: {missing.why}", 0)
        if missing.hidden:
            lines += wrapped(f"Hidden by that: {missing.hidden}", 2)
    lines += wrapped(f"Set-up {findings.set_up}: {findings.why_set_up}.", 0)
    lines += wrapped(f"{findings.summary}.", 0)
    return "\n".join(lines) + "\n"


def _set_up(one: Compared, findings: Findings) -> tuple[str, ...]:
    chosen = " *" if one.set_up == findings.set_up else ""
    return (
        f"{one.set_up}{chosen}",
        f"{one.falling} of {len(findings.nodes)} workers",
        "-" if one.fewest_steps is None else str(one.fewest_steps),
        f"{one.nodes_worth:.1f}",
        f"{one.worst_nodes_worth:.1f}",
    )


def _overview(title: str, nodes: Sequence[ExposedNode], *, colour: bool) -> Iterator[str]:
    rows = [
        (
            node.name,
            "no" if node.cluster_steps is None else _steps(node.cluster_steps),
            str(node.secrets),
            f"{node.nodes_worth:.1f}",
            str(node.service_accounts),
            str(node.nodes),
        )
        for node in nodes[:_MOST_NODES]
    ]
    yield f"{title}:"
    head, *lines = _table([_NODES, *rows])
    yield head
    for line, node in zip(lines, nodes, strict=False):
        paint = _GREEN if node.cluster_steps is None else _RED
        yield f"{paint}{line}{_PLAIN}" if colour else line
    yield from _more(len(nodes) - _MOST_NODES, "node")


def _paths(findings: Findings) -> Iterator[str]:
    """Yield the shortest paths to the cluster; those that differ only in node and pod once."""
    found: dict[tuple[int, ...], tuple[Way, list[str]]] = {}
    for node in findings.nodes:
        for way in node.ways:
            if way.to.kind == "cluster":
                tail = tuple(
                    index
                    for index in way.path
                    if findings.steps[index].start.kind not in ("nodes", "pods")
                )
                found.setdefault(tail, (way, []))[1].append(node.name)
    if not found:
        return
    ranked = sorted(found.values(), key=lambda one: (one[0].steps, -len(one[1]), one[1]))
    yield ""
    yield "What leads to cluster-admin, the shortest paths first:"
    for way, nodes in ranked[:_MOST_PATHS]:
        named = ", ".join(nodes[:_NAMED])
        more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
        yield ""
        yield from wrapped(f"{_steps(way.steps)} from {named}{more}", 0)
        for number, line in enumerate(told_steps(findings.steps[index] for index in way.path)):
            yield from wrapped(f"→ {line}" if number else line, 2, 6)
        for remedy in way.closed_by:
            yield from wrapped(f"closed by: {told(remedy)}", 2, 6)
    yield from _more(len(ranked) - _MOST_PATHS, "path")


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count != 1)}"


def _more(count: int, what: str) -> list[str]:
    if count <= 0:
        return []
    return [f"… and {count} {what}{'s' * (count != 1)} more; JSON and HTML name them."]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return aligned lines; the first column gives way."""
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rest = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = min(widths[0], max(12, WIDTH - rest))
    return [
        "  ".join(
            f"{shortened(cell, width):<{width}}" if not number else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
