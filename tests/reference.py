"""The pages of docs/reference and the tables of docs/rules.md, from the code: ``make docs``."""

import argparse
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from noderestrict.agents import file as agents_file
from noderestrict.cli import build_parser
from noderestrict.cli._parser import NAME, HelpFormatter, Parser
from noderestrict.cli.config import variable
from noderestrict.cli.exit_codes import EXIT_CODES, exit_codes
from noderestrict.cli.fields import settings_of
from noderestrict.cli.serve_config import ServeConfig
from noderestrict.exposure import findings as exposure_findings
from noderestrict.policy.cel import Uncovered
from noderestrict.policy.releases import LATEST_MINOR, OLDEST_MINOR
from noderestrict.policy.rule import ANY, Rule
from noderestrict.policy.table import RULES
from noderestrict.rbac.rights import RIGHTS, SEVERITIES
from noderestrict.survey import findings
from noderestrict.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
RULES_PAGE = ROOT / "docs" / "rules.md"
_CONFORMANCE = ROOT / "tests" / "conformance"
#: The release whose components labelled the cases outside of the folder of versions.
_MAIN_MINOR = 36
_MAIN_CASES = {
    "admission": ("admission/generated.jsonl", "captured/captured.jsonl"),
    "authorizer": ("authorizer/named.jsonl", "authorizer/random.jsonl"),
}
_BUILT = re.compile(r"^\s*k8s\.io/kubernetes v([0-9.]+)\b", re.MULTILINE)


def flags() -> str:
    """Return the page of serve's flags."""
    rows = []
    for setting in settings_of(ServeConfig):
        default = setting.plain(setting.default)
        shown = "" if default in (None, [], "", {}) else f"`{str(default).lower()}`"
        if isinstance(default, str):
            shown = f"`{default}`"
        values = f" ({', '.join(setting.kind.choices)})" if setting.kind.choices else ""
        text = setting.help.replace("|", "\\|")
        rows.append(f"| `--{setting.name}` | `{variable(setting)}` | {shown} | {text}{values} |")
    return "\n".join(
        (
            "# Flags of `noderestrict serve`",
            "",
            "Every flag may also be set in the environment, or in the YAML file of `--config` with "
            "its name",
            "as the key. A flag wins over the environment, which wins over the file. Unknown keys",
            "and variables are refused by name; the variables that Kubernetes sets for a Service",
            "named `noderestrict` are left alone. `--print-config` prints the configuration in "
            "effect",
            "as such a file.",
            "",
            "| Flag | Variable | Default | Meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        )
    )


def described_metrics() -> Iterator[tuple[str, str, Sequence[str], str]]:
    """Yield name, type, labels and meaning of each of our metrics."""
    for collector in Metrics().registry._collector_to_names:
        for family in collector.collect():
            if family.name.startswith("noderestrict_"):
                total = "_total" if family.type == "counter" else ""
                labels = getattr(family, "_labelnames", getattr(collector, "_labelnames", ()))
                yield family.name + total, family.type, labels, family.documentation


def metrics() -> str:
    """Return the page of metrics."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, kind, labels, meaning in described_metrics()
    ]
    return "\n".join(
        (
            "# Metrics",
            "",
            "Served at `/metrics` of `--metrics-address` in the Prometheus text format, or as "
            "OpenMetrics if the",
            "client accepts that, together with the metrics of the process (`process_*`, "
            "`python_info`). No label",
            "contains the name of a node, pod or user.",
            "",
            "| Metric | Type | Labels | Meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        )
    )


def doctor() -> str:
    """Return the page of the doctor's checks."""
    from noderestrict.doctor.findings import STATUSES
    from noderestrict.doctor.run import AGENT_CHECKS, CHECKS

    return "\n".join(
        (
            "# Checks of `noderestrict doctor`",
            "",
            "A check that cannot be completed says why, and the others still run. Only if the API "
            "server does",
            "not answer at all is nothing else checked.",
            "",
            *_exit_code_rows("doctor"),
            "",
            "`--output json` prints an array with an object for each finding:",
            "",
            "| Field | Meaning |",
            "|---|---|",
            "| `check` | name of the check |",
            f"| `status` | {'; '.join(f'`{name}`: {text}' for name, text in STATUSES.items())} |",
            "| `message` | what was found |",
            "| `remedy` | what to do about it, or empty |",
            "| `command` | what to type to do that, one command a line, or empty; words in "
            "capitals stand for what only you know |",
            "| `patch` | operations of a JSON Patch (RFC 6902) that turn the installed object into "
            "the rendered one, or empty; those of all findings about an object make one patch, in "
            "this order |",
            "",
            "| Check | Question |",
            "|---|---|",
            *(f"| {check.name} | {check.title} |" for check in CHECKS),
            "",
            "With policies of agents, from `--agents FILE` or else of the servers, these as well:",
            "",
            "| Check | Question |",
            "|---|---|",
            *(f"| {check.name} | {check.title} |" for check in AGENT_CHECKS),
            "",
        )
    )


def _requests(rule: Rule) -> str:
    """Return the requests that a rule judges, as people write them."""
    if not rule.targets:
        return "any request of a node"
    found: dict[str, list[str]] = {}
    closed = False
    for target in rule.targets:
        name = target.resource
        if target.sub_resource not in ("", ANY):
            name += f"/{target.sub_resource}"
        operations = found.setdefault(name, [])
        if target.operation == ANY:
            closed = len(rule.targets) == 1
            operations[:] = []
        elif target.operation.lower() not in operations:
            operations.append(target.operation.lower())
    parts = [f"{', '.join(verbs)} {name}".strip() for name, verbs in found.items()]
    return ("anything else on " if closed else "") + "; ".join(parts)


def _since(rule: Rule) -> str:
    """Return which releases have a rule, and its newer parts."""
    parts = (f"{part.demands}: {part.since}" for part in rule.parts)
    return "; ".join((str(rule.since), *parts))


def rules() -> str:
    """Return the table of rules."""
    rows = (
        f"| `{rule.id}` | {_requests(rule)} | {rule.demands} "
        f"| {'strict' if rule.strict else _since(rule)} |\n"
        for rule in RULES
    )
    return "| Rule | Request | Demands | Since |\n|---|---|---|---|\n" + "".join(rows)


def _cases(component: str, minor: int) -> str:
    """Return how many cases a component of a release labelled, "" for none."""
    files = [_CONFORMANCE / "versions" / f"{component}-1.{minor}.jsonl.gz"]
    if minor == _MAIN_MINOR:
        files += (_CONFORMANCE / name for name in _MAIN_CASES[component])
    count = sum(_lines(file) for file in files if file.exists())
    return f"{count:,}" if count else ""


def _lines(file: Path) -> int:
    data = file.read_bytes()
    return (gzip.decompress(data) if file.suffix == ".gz" else data).count(b"\n")


def _built(minor: int) -> str:
    """Return the patch release that ``make assets`` builds of a minor version, "" for none."""
    module = ROOT / "tests" / "assets" / f"kubernetes-1.{minor}" / "go.mod"
    if not module.exists():
        return ""
    found = _BUILT.search(module.read_text())
    assert found is not None, module
    return found[1]


def versions() -> str:
    """Return the table of Kubernetes versions, and what is tested of each."""
    rows = (
        f"| 1.{minor} | {_cases('admission', minor) or '–'} | {_cases('authorizer', minor) or '–'} "
        f"| {_built(minor) or '–'} |\n"
        for minor in range(OLDEST_MINOR, LATEST_MINOR + 1)
    )
    head = "| Kubernetes | Plugin | Authorizer | End to end |\n|---|---|---|---|\n"
    return head + "".join(rows)


#: What stands in that page between ``<!-- NAME -->`` and ``<!-- end of NAME -->``.
TABLES = {"rules": rules, "versions": versions}


def with_tables(page: str) -> str:
    """Return the page of rules with the tables as the code and the tests have them."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n\n", f"\n<!-- end of {name} -->"
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        assert found, start
        assert closed, end
        page = f"{before}{start}{table()}{end}{after}"
    return page


def agents_schema() -> str:
    """Return the JSON Schema of a policy file for agents."""
    return json.dumps(agents_file.schema(), indent=2, ensure_ascii=False) + "\n"


def find_schema() -> str:
    """Return the JSON Schema of what ``agents find`` reports."""
    return json.dumps(findings.schema(), indent=2, ensure_ascii=False) + "\n"


def rights() -> str:
    """Return the page of rights that reach beyond a node."""
    rows = [
        f"| `{right.id}` | {right.severity} | {', '.join(right.verbs)} "
        f"| {', '.join(right.resources)} | {right.why} | {'; '.join(right.leads)} |"
        for right in sorted(RIGHTS, key=lambda one: -one.severity)
    ]
    return "\n".join(
        (
            "# Rights that reach beyond a node",
            "",
            "`noderestrict agents find` looks for these in what RBAC grants a service account that "
            "runs on every",
            "node. No role can hold them to a node.",
            "",
            "| Severity | Meaning |",
            "|---|---|",
            *(f"| {one} | {meaning} |" for one, meaning in SEVERITIES.items()),
            "",
            "A right is a step less severe where a role grants it in a single namespace other than "
            "`kube-system`,",
            "and another step where the role names the objects, unless one of them is as bad as "
            "all.",
            "",
            "`noderestrict exposure` follows those that lead on to other credentials.",
            "",
            "| Right | Severity | Verbs | Resources | Why | Leads on to |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        )
    )


def policies() -> str:
    """Return the page of the rules that are in policies."""
    rows = []
    for rule in RULES:
        strict = "strict" if rule.strict else ""
        found = f"no | {rule.cel.value}" if isinstance(rule.cel, Uncovered) else "yes |"
        rows.append(f"| `{rule.id}` | {strict} | {found} |")
    return "\n".join(
        (
            "# Rules in policies",
            "",
            "`noderestrict render policies` and `manifests/policies` have these rules; see "
            "[the rules as",
            "policies](../policies.md). Strict rules are in them if they are turned on.",
            "",
            "| Rule | | In policies | Why not |",
            "|---|---|---|---|",
            *rows,
            "",
        )
    )


def exposure_schema() -> str:
    """Return the JSON Schema of what ``exposure`` reports."""
    return json.dumps(exposure_findings.schema(), indent=2) + "\n"


def _exit_code_rows(command: str) -> list[str]:
    rows = exit_codes(command).items()
    return [
        "| Exit code | Meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in rows),
    ]


def exit_code_page() -> str:
    """Return the page of exit codes."""
    rows = []
    for command, codes in EXIT_CODES.items():
        cells = (codes.get(code, "" if code != 2 else "as above") for code in (0, 1, 2))
        rows.append(f"| `{command}` | {' | '.join(cells)} |")
    return "\n".join(
        (
            "# Exit codes",
            "",
            *_exit_code_rows(""),
            "",
            "Some commands tell what they found. Where 2 has a meaning of its own, it keeps that "
            "of the table above,",
            "too.",
            "",
            "| Command | 0 | 1 | 2 |",
            "|---|---|---|---|",
            *rows,
            "",
            "A command whose output nobody reads to its end, as with `| head`, ends with 0.",
            "",
        )
    )


def _argument_rows(parser: Parser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        shown = ", ".join(f"`{flag}`" for flag in action.option_strings)
        formatter = HelpFormatter(parser.prog)
        values = "" if action.nargs == 0 else formatter.usage_of(action).rpartition("--")[2]
        if action.option_strings:
            values = values.partition(" ")[2]
        text = formatter._expand_help(action).replace("|", "\\|")
        values = f"`{values}`".replace("|", "\\|") if values else ""
        yield f"| {shown} | {values} | {text} |"


def commands() -> str:
    """Return the page of all commands."""
    parts = [
        "# Commands",
        "",
        "What `--help` shows of each command. The settings of `serve` have "
        "[a page of their own](flags.md), and",
        "[exit codes](exit-codes.md) and [output for programs](output.md) too.",
        "",
    ]
    for parser in build_parser(prog=NAME)[0].leaves():
        parts += [f"## {parser.words}", "", parser.description or "", ""]
        if parser.words != "serve":
            parts += ["| Flag | Value | Meaning |", "|---|---|---|", *_argument_rows(parser), ""]
    return "\n".join(parts)


def _formats() -> Iterator[str]:
    for parser in build_parser(prog=NAME)[0].leaves():
        for action in parser._actions:
            if "--output" in action.option_strings and action.choices:
                rest = sorted(set(action.choices) - {action.default})
                others = ", ".join(f"`{one}`" for one in rest)
                yield f"| `{parser.words}` | `{action.default}` | {others} |"


#: What ``--output json`` prints, by command.
_JSON = {
    "agents find": "one object, which [its schema](agents-find.schema.json) describes",
    "agents learn": "an object with `policy`, which `--agents` reads if it is written to a file, "
    "and `unexplained`: for each agent what no relation explains, one line each",
    "certs": "an object with `action`, `exitCode`, and three lists of sentences: `done` says what "
    "was written or dropped, `problems` what was wrong, `warnings` what is odd",
    "doctor": "an array with [an object for each finding](doctor.md)",
    "exposure": "one object, which [its schema](exposure.schema.json) describes",
    "graph": "an array with an object for each path: `node`, `resource`, `namespace` and `name` of "
    "the object, `reachable`, and `path`, a list of objects from the node to this one, each with "
    "`resource`, `namespace` and `name`",
    "replay": "an object on each line for each request: who asked for what (`id`, `uid`, `node`, "
    "`agent`, `user`, `impersonator`, `operation`, `resource`, `namespace`, `name`, `userAgent`, "
    "`dryRun`), where that is recorded (`file`, `line`, `time`, `level`, `alreadyRefused`), and "
    "`decision`, which is `allowed`, `denied`, `undecided` or `not judged`. What is judged has "
    "`certainty`, `restsOn`, `allowed`, `code`, `reason`, `rule`, `message` and perhaps `detail`; "
    "with an expectation, `expected` and `ok`; with `--explain`, `lookups`. What is undecided has "
    "`certainty`, `rule` and `missing`, what is not judged has `why`. Sums go to standard error",
    "verify": "one object: the findings by rule, each with all `attempts` and their answers, "
    "`counts` by outcome, and `exitCode`",
    "version": "an object with `version`, `build` (`commit` and `date`, empty if they are not "
    "known), `kubernetes` (`oldest` and `newest` whose rules are known), `featureGates` with their "
    "defaults in the newest, and `python`",
}


def output() -> str:
    """Return the page of formats."""
    return "\n".join(
        (
            "# Output for programs",
            "",
            "`-o`, `--output` chooses the format of what a command prints to standard output. "
            "Progress and errors go",
            "to standard error, and the [exit code](exit-codes.md) is the same in each format. "
            "Fields may be added",
            "to JSON; those that are there keep their meaning.",
            "",
            "| Command | Default | Also |",
            "|---|---|---|",
            *_formats(),
            "",
            "`render` and its kinds print the path of each file that they write, one on a line.",
            "`serve --print-config` prints YAML that `--config` reads.",
            "",
            "With `--output json`,",
            "",
            *(f"- `{command}` prints {text}." for command, text in _JSON.items()),
            "",
        )
    )


PAGES = {
    "agents.schema.json": agents_schema,
    "agents-find.schema.json": find_schema,
    "commands.md": commands,
    "doctor.md": doctor,
    "exit-codes.md": exit_code_page,
    "exposure.schema.json": exposure_schema,
    "flags.md": flags,
    "metrics.md": metrics,
    "output.md": output,
    "policies.md": policies,
    "rights.md": rights,
}

if __name__ == "__main__":
    for page, text in PAGES.items():
        (FOLDER / page).write_text(text())
    RULES_PAGE.write_text(with_tables(RULES_PAGE.read_text()))
