"""A table for terminals: one line for each agent, then the rights that nothing holds."""

from collections import Counter
from collections.abc import Iterator

from noderestrict.policy.lines import WIDTH, shortened, wrapped
from noderestrict.policy.text import printable
from noderestrict.survey.findings import Findings, FoundAgent
from noderestrict.survey.reports import access

_RED, _YELLOW, _PLAIN = "\033[31m", "\033[33m", "\033[0m"
_COLOURS = {"critical": _RED, "high": _RED, "medium": _YELLOW}
_HEAD = ("WORST", "SERVICE ACCOUNT", "NODES", "CRIT/HIGH/MED/LOW", "HELD BY")
_SEVERITIES = ("critical", "high", "medium", "low")
_FEWEST = 20


def report(findings: Findings, *, colour: bool) -> str:
    """Return the table, the rights of each agent, and the counts as the last line."""
    lines = [*_overview(findings, colour=colour)]
    for agent in findings.agents:
        if agent.open or agent.impersonates:
            lines += ["", *_details(agent, colour=colour)]
    if findings.static_pods:
        lines += ["", "Static pods that see a kubeconfig of their node, whoever that is for:"]
        for pod in findings.static_pods:
            nodes = _count(len(pod.nodes), "node")
            lines += wrapped(f"{pod.pod} on {nodes}: {', '.join(pod.kubeconfigs)}", 2)
    lines.append("")
    for dangling in findings.dangling:
        lines += wrapped(f"Note: {dangling}: there is no such role, so nothing is granted.", 0)
    for missing in findings.not_seen:
        lines += wrapped(f"Not seen: {missing.what}: {missing.why}", 0)
        if missing.hidden:
            lines += wrapped(f"Hidden by that: {missing.hidden}", 2)
    lines.append(printable(f"{findings.summary}."))
    return "\n".join(lines) + "\n"


def _overview(findings: Findings, *, colour: bool) -> Iterator[str]:
    rows = [
        (
            agent.severity,
            agent.service_account,
            str(agent.nodes),
            _sums(agent),
            ", ".join(agent.held_by) or "nothing",
        )
        for agent in findings.agents
    ]
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEAD, *cells, strict=True)]
    over = sum(widths) + 2 * (len(widths) - 1) - WIDTH
    # What holds it gives way first, then its name.
    for column in (4, 1):
        cut = max(0, min(over, widths[column] - _FEWEST))
        widths[column] -= cut
        over -= cut
    for row in (_HEAD, *cells):
        line = "  ".join(
            f"{shortened(cell, width):<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        yield _painted(line, row[0], colour=colour)


def _sums(agent: FoundAgent) -> str:
    counts = Counter(right.severity for right in agent.open)
    return " / ".join(str(counts[one]) for one in _SEVERITIES)


def _details(agent: FoundAgent, *, colour: bool) -> Iterator[str]:
    sets = f"DaemonSet{'s' * (len(agent.daemon_sets) > 1)} {', '.join(agent.daemon_sets)}"
    yield from wrapped(f"{agent.service_account} ({sets})", 0)
    for right in agent.open:
        first, *more = wrapped(f"{right.severity:<8} {access(right)}", 2, 11)
        yield _painted(first, right.severity, colour=colour)
        yield from more
        yield from wrapped(right.why, 11)
        for source in right.from_:
            yield from wrapped(f"from {source}", 11, 13)
    kept = [right.right for right in agent.rights if right.held_by]
    if kept:
        yield from wrapped(f"held     {', '.join(kept)}", 2, 11)
    if agent.writes or agent.reads:
        writes, reads = _count(len(agent.writes), "write"), _count(len(agent.reads), "read")
        yield f"  other    {writes} and {reads} beyond its node; JSON and HTML name them"
    if agent.impersonates:
        yield from wrapped(f"as node  {', '.join(agent.impersonates)}", 2, 11)
    if agent.remedy:
        yield from wrapped(f"remedy   {agent.remedy}", 2, 11)


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _painted(line: str, severity: str, *, colour: bool) -> str:
    paint = _COLOURS.get(severity, "")
    return line.replace(severity, f"{paint}{severity}{_PLAIN}", 1) if colour and paint else line
