"""``noderestrict replay``: judge captured reviews offline."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._flags import add_policy_flags, add_size_flag, policy_settings
from noderestrict.policy.text import printable

if TYPE_CHECKING:
    from noderestrict.replay.audit import Undecided
    from noderestrict.replay.reports import Report

_PROGRESS_EVERY = 500


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "replay",
        help="judge captured reviews offline",
        description="Judge captured AdmissionReviews and SubjectAccessReviews offline: who would "
        "be refused, and why. "
        "Exit code 0: all as expected; 1: some not; 2: unreadable input.",
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="reviews or cases: JSON, JSON lines, a List, YAML, each also .gz; - for stdin",
    )
    add_policy_flags(parser)
    parser.add_argument(
        "--audit-log",
        nargs="+",
        action="append",
        default=[],
        metavar="FILE",
        help="the API server's audit log, JSON lines, also .gz: judge the writes of nodes in it",
    )
    parser.add_argument(
        "--output",
        choices=("table", "json", "html", "junit", "markdown"),
        default="table",
        help="the report",
    )
    add_size_flag(parser)
    parser.add_argument("--explain", action="store_true", help="show the look-ups of each case")
    parser.add_argument(
        "--fail-on-denied", action="store_true", help="exit with 1 if any review is denied"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge all cases of all files and return the exit code.

    Raises:
        UsageError: the state cannot be read.
    """
    from noderestrict.graph.graph import Graph
    from noderestrict.replay.audit import AuditLog, Undecided
    from noderestrict.replay.cases import Case, QuestionsCase, cases
    from noderestrict.replay.questions import ask_case
    from noderestrict.replay.run import Row, Summary, judge_case
    from noderestrict.replay.sources import MIB, Unreadable
    from noderestrict.replay.state import StateError, load_state

    files, state = _files_and_state(options)
    logs = [file for group in options.audit_log for file in group]
    if not files and not logs:
        raise UsageError("a FILE with reviews is needed; - is stdin")
    graph = Graph(most_edges=None)
    try:
        listers = load_state(state, graph, options.max_file_mib * MIB)
    except StateError as error:
        raise UsageError(str(error)) from None
    settings = policy_settings(options)

    def judged(case: Case | QuestionsCase | Unreadable) -> Iterator[Row | Unreadable]:
        if isinstance(case, QuestionsCase):
            yield from ask_case(case, settings, graph)
        elif isinstance(case, Case):
            result = judge_case(case, settings, listers)
            yield result if isinstance(result, Unreadable) else result.row
        else:
            yield case

    terminal = sys.stdout.isatty()
    report = _report(options, terminal=terminal)
    summary = Summary()
    started = time.perf_counter()
    progress = sys.stderr.isatty() and not terminal
    try:
        for file in files:
            for case in cases(file, options.max_file_mib * MIB):
                for result in judged(case):
                    summary.count(result)
                    if isinstance(result, Unreadable):
                        print(f"noderestrict replay: {result}", file=sys.stderr)
                    else:
                        report.result(result)
                if progress and summary.total % _PROGRESS_EVERY == 0:
                    print(f"\r{summary.total} cases", end="", file=sys.stderr, flush=True)
        audit = AuditLog(settings, listers)
        for log in logs:
            for row in audit.rows(log):
                if isinstance(row, Undecided):
                    if options.explain:
                        _tell_undecided(row)
                    continue
                summary.count(row)
                if isinstance(row, Unreadable):
                    print(f"noderestrict replay: {row}", file=sys.stderr)
                else:
                    report.result(row)
        summary.undecided = audit.counts.undecided
        if progress:
            print("\r\033[K", end="", file=sys.stderr)
        report.end(summary)
        sys.stdout.flush()
        if logs:
            seconds = max(time.perf_counter() - started, 1e-9)
            counts = audit.counts
            print(
                f"audit log: {counts.events} events, {counts.judged} writes of nodes judged, "
                f"{counts.undecided} not (--explain tells why); "
                f"{counts.bytes / seconds / 1e6:.0f} MB/s",
                file=sys.stderr,
            )
    except BrokenPipeError:
        # The reader has seen enough; stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return summary.exit_code(fail_on_denied=options.fail_on_denied)


def _report(options: argparse.Namespace, *, terminal: bool) -> "Report":
    from noderestrict.replay import documents, reports

    if options.output == "json":
        return reports.JSONReport(sys.stdout, sys.stderr, explain=options.explain)
    if options.output == "html":
        return documents.HTMLReport(sys.stdout)
    if options.output == "markdown":
        return documents.MarkdownReport(sys.stdout)
    if options.output == "junit":
        return documents.JUnitReport(sys.stdout, fail_on_denied=options.fail_on_denied)
    colour = terminal and "NO_COLOR" not in os.environ
    return reports.TableReport(sys.stdout, colour=colour, explain=options.explain)


def _tell_undecided(row: "Undecided") -> None:
    reference = row.event.objectRef
    what = f"{row.event.verb} {reference.resource} {reference.name}" if reference else ""
    text = f"not judged: {row.event.auditID} {what}: {row.problem}"
    print(printable(text), file=sys.stderr)


def _files_and_state(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    # In "--state S FILE…" argparse gives all of them to the flag: then only the first is its own.
    files, groups = options.files, options.state
    if not files and groups:
        *groups, (own, *files) = groups
        groups.append([own])
    return files, [file for group in groups for file in group]
