"""An HTML page for people, which loads nothing else."""

from noderestrict.replay.page import counted, page, shown
from noderestrict.verify.results import FAILS, HOLDS, NOTHING, UNTOLD, Attempt, Findings, RuleResult

_CLASSES = {HOLDS: "good", FAILS: "bad"}


def report(findings: Findings, *, colour: bool) -> str:  # noqa: ARG001 (the page has its own)
    """Return the counts, and each rule with the requests that tried it out."""
    counts = findings.counts
    sums = {
        "hold": counts[HOLDS],
        "do not hold": counts[FAILS],
        "could not be told": counts[UNTOLD],
    }
    if counts[NOTHING]:
        sums["not applicable"] = counts[NOTHING]
    who = findings.user or "you"
    how = ", impersonating it" if findings.impersonated else ""
    notes = "".join(f'<p class="note">{shown(note)}</p>' for note in findings.notes)
    body = (
        f"{counted(sums)}<p>Node <b>{shown(findings.node)}</b>, "
        f"Kubernetes {shown(findings.version)}, as {shown(who + how)}. "
        f"The rules are {shown(findings.release)}.</p>{notes}"
        f"<h2>Rules</h2>{''.join(map(_details, findings.rules))}"
    )
    return page(f"noderestrict: {findings.summary}", "noderestrict verify", body)


def _details(rule: RuleResult) -> str:
    kind = _CLASSES.get(rule.result, "note")
    by = f" by {' and '.join(rule.by)}" if rule.by else ""
    why = "".join(f"<p>{shown(text)}</p>" for text in rule.why)
    ours = f'<p class="note">noderestrict: {shown(rule.ours)}</p>' if rule.ours else ""
    return (
        f'<details><summary><span class="{kind}">{rule.result}</span> '
        f"<code>{shown(rule.rule)}</code>{shown(by)}</summary>"
        f"<p>{shown(rule.demands)}</p>{why}{ours}{_attempts(rule)}</details>"
    )


def _attempts(rule: RuleResult) -> str:
    rows = "".join(map(_row, rule.attempts))
    return (
        '<div class="scroll"><table><tr><th>Request</th><th>Must</th><th>Did</th><th>By</th>'
        f"<th>Answer</th></tr>{rows}</table></div>"
    )


def _row(attempt: Attempt) -> str:
    must = "be refused" if attempt.hostile else "pass"
    outcome = attempt.outcome
    cells = (attempt.request or attempt.what, must, outcome.state, outcome.by, outcome.message)
    return f"<tr>{''.join(f'<td>{shown(cell)}</td>' for cell in cells)}</tr>"
