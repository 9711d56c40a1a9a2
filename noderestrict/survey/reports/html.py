"""An HTML page for people, which loads nothing else."""

from noderestrict.replay.page import counted, page, shown
from noderestrict.survey.findings import NONE, Findings, FoundAgent, FoundRight, OtherAccess
from noderestrict.survey.reports import scope

_CLASSES = {"critical": "bad", "high": "bad", "medium": "open", "low": "note", NONE: "good"}
_WIDE = """
.scroll td { min-width: 7rem; overflow-wrap: break-word; }
.rights td:nth-child(2), .rights td:nth-child(4), .rights td:nth-child(5) { min-width: 13rem; }
"""
_STYLE = _WIDE + "".join(
    f'body:has(option[value="{one}"]:checked) details:not(.{one}) {{ display: none; }}\n'
    for one in _CLASSES
)


def report(findings: Findings, *, colour: bool) -> str:  # noqa: ARG001 (the page has its own)
    """Return the counts, each agent with its rights, and what could not be seen."""
    agents = findings.agents
    sums = {"agents": len(agents)}
    for severity in _CLASSES:
        if count := sum(agent.severity == severity for agent in agents):
            sums[f"worst: {severity}"] = count
    options = "".join(f'<option value="{one}">{one}</option>' for one in _CLASSES)
    body = (
        f"{counted(sums)}{_about(findings)}<h2>Agents</h2>"
        f'<div class="filters"><label>Worst right that nothing holds '
        f"<select><option>all</option>{options}</select></label></div>"
        f"{''.join(map(_agent, agents))}{_static_pods(findings)}"
    )
    return page("noderestrict: agents", "noderestrict agents find", body, _STYLE)


def _about(findings: Findings) -> str:
    lines = [f"Kubernetes {findings.kubernetes}."] if findings.kubernetes else []
    lines += (
        f"Not seen: {one.what}: {one.why}. Hidden by that: {one.hidden}."
        for one in findings.not_seen
    )
    lines += (f"{one}: there is no such role, so nothing is granted." for one in findings.dangling)
    return "".join(f'<p class="note">{shown(line)}</p>' for line in lines)


def _agent(agent: FoundAgent) -> str:
    nodes = "1 node" if agent.nodes == 1 else f"{agent.nodes:,} nodes"
    facts = {
        "DaemonSets": ", ".join(agent.daemon_sets),
        "Held by": ", ".join(agent.held_by) or "nothing",
        "As its node": ", ".join(agent.impersonates),
        "Remedy": agent.remedy,
    }
    items = "".join(
        f"<dt>{name}</dt><dd>{shown(text)}</dd>" for name, text in facts.items() if text
    )
    return (
        f'<details class="{agent.severity}"><summary><span class="times">{nodes}</span>'
        f'<span class="{_CLASSES[agent.severity]}">{agent.severity}</span> '
        f"<b>{shown(agent.service_account)}</b></summary>"
        f"<dl>{items}</dl>{_rights(agent)}"
        f"{_others('Other writes beyond its node', agent.writes)}"
        f"{_others('Other reads beyond its node', agent.reads)}</details>"
    )


def _rights(agent: FoundAgent) -> str:
    if not agent.rights:
        return "<p>It has no right of the table.</p>"
    rows = "".join(map(_right, agent.rights))
    return (
        '<div class="scroll rights"><table><tr><th>Severity</th><th>Right</th><th>Where</th>'
        f"<th>Why it matters</th><th>From</th><th>Held by</th></tr>{rows}</table></div>"
    )


def _right(right: FoundRight) -> str:
    kind = "note" if right.held_by else _CLASSES[right.severity]
    what = f"{', '.join(right.verbs)} {', '.join(right.resources)}"
    sources = "<br>".join(map(shown, right.from_))
    return (
        f'<tr><td><span class="{kind}">{right.severity}</span></td>'
        f"<td>{shown(what)}<br><code>{shown(right.right)}</code></td><td>{shown(scope(right))}</td>"
        f"<td>{shown(right.why)}</td><td>{sources}</td><td>{shown(right.held_by or '–')}</td></tr>"
    )


def _others(title: str, others: tuple[OtherAccess, ...]) -> str:
    if not others:
        return ""
    rows = "".join(
        f"<tr><td>{shown(one.resource)}</td><td>{shown(', '.join(one.verbs))}</td>"
        f"<td>{shown(scope(one))}</td></tr>"
        for one in others
    )
    return (
        f'<p>{title}:</p><div class="scroll"><table><tr><th>Resource</th><th>Verbs</th>'
        f"<th>Where</th></tr>{rows}</table></div>"
    )


def _static_pods(findings: Findings) -> str:
    if not findings.static_pods:
        return ""
    rows = "".join(
        f"<tr><td>{shown(one.pod)}</td><td>{shown(', '.join(one.nodes))}</td>"
        f"<td>{shown(', '.join(one.kubeconfigs))}</td></tr>"
        for one in findings.static_pods
    )
    return (
        "<h2>Static pods</h2><p>They see a kubeconfig of their node, whoever that is for.</p>"
        '<div class="scroll"><table><tr><th>Pod</th><th>Nodes</th><th>Kubeconfig</th></tr>'
        f"{rows}</table></div>"
    )
