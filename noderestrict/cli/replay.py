"""``noderestrict replay``: judge captured reviews offline."""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from noderestrict.cli._errors import UsageError
from noderestrict.cli._flags import add_policy_flags, policy_settings

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
    parser.add_argument("--output", choices=("table", "json"), default="table", help="the report")
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
    from noderestrict.replay.cases import Case, QuestionsCase, cases
    from noderestrict.replay.questions import ask_case
    from noderestrict.replay.reports import (
        JSONReport,
        Report,
        TableReport,
    )
    from noderestrict.replay.run import Row, Summary, judge_case
    from noderestrict.replay.sources import Unreadable
    from noderestrict.replay.state import StateError, load_state

    files, state = _files_and_state(options)
    if not files:
        raise UsageError("a FILE with reviews is needed; - is stdin")
    graph = Graph()
    try:
        listers = load_state(state, graph)
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
    report: Report
    if options.output == "json":
        report = JSONReport(sys.stdout, sys.stderr, explain=options.explain)
    else:
        colour = terminal and "NO_COLOR" not in os.environ
        report = TableReport(sys.stdout, colour=colour, explain=options.explain)
    summary = Summary()
    progress = sys.stderr.isatty() and not terminal
    try:
        for file in files:
            for case in cases(file):
                for result in judged(case):
                    summary.count(result)
                    if isinstance(result, Unreadable):
                        print(f"noderestrict replay: {result}", file=sys.stderr)
                    else:
                        report.result(result)
                if progress and summary.total % _PROGRESS_EVERY == 0:
                    print(f"\r{summary.total} cases", end="", file=sys.stderr, flush=True)
        if progress:
            print("\r\033[K", end="", file=sys.stderr)
        report.end(summary)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough; stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return summary.exit_code(fail_on_denied=options.fail_on_denied)


def _files_and_state(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    # In "--state S FILE…" argparse gives all of them to the flag: then only the first is its own.
    files, groups = options.files, options.state
    if not files and groups:
        *groups, (own, *files) = groups
        groups.append([own])
    return files, [file for group in groups for file in group]
