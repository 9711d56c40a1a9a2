"""``noderestrict replay``: judge captured reviews offline."""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from noderestrict import __version__
from noderestrict.agents.load import PolicyFileError
from noderestrict.cli._errors import UsageError
from noderestrict.cli._output import has_colours, shows_unicode, silence
from noderestrict.cli._parser import NAME
from noderestrict.cli.agent_files import read_agents
from noderestrict.cli.argument_types import RULES_OF, checked
from noderestrict.cli.fields import add_flags, from_flags
from noderestrict.cli.replay_policies import policy_judge
from noderestrict.cli.shared_flags import Policy, add_output_flag, add_size_flag
from noderestrict.policy.releases import LATEST, Release
from noderestrict.replay import reports

if TYPE_CHECKING:
    from noderestrict.replay.report import Report
    from noderestrict.replay.results import NotJudged, Undecided
    from noderestrict.replay.run import Run
    from noderestrict.replay.sources import Unreadable

#: Seconds between signs of progress, on a terminal and in a log.
_PROGRESS_EVERY, _LOGGED_EVERY = 0.5, 60.0
_COLUMNS = 80


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's parser."""
    parser = subparsers.add_parser(
        "replay",
        help="judge captured reviews offline",
        description="Judge captured AdmissionReviews and SubjectAccessReviews offline: which would "
        "be denied, and why.",
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="reviews, cases or audit logs: JSON, JSON lines, a List, YAML, each also .gz or .zst; "
        "- for stdin",
    )
    add_flags(parser, Policy)
    parser.add_argument(
        "--agents",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="policy files of agents, whose captured reviews are judged too, and whose requests in "
        "audit logs",
    )
    parser.add_argument(
        "--rules",
        type=checked(RULES_OF.parse),
        action="append",
        default=[],
        metavar=RULES_OF.metavar,
        help="Kubernetes release whose rules apply, and its gates unless others are given "
        "(default: latest); with two, report what changes from the first to the second",
    )
    parser.add_argument(
        "--audit-log",
        nargs="+",
        action="append",
        default=[],
        metavar="FILE",
        help="judge the writes of nodes in API servers' audit logs: as they write them, or as a "
        "cloud or log pipeline exports them, also .gz or .zst",
    )
    parser.add_argument(
        "--policies",
        action="append",
        default=[],
        metavar="FILE_OR_DIR",
        help="ValidatingAdmissionPolicies and their bindings, or 'rendered' for those that render "
        "writes with the same flags: judge by them, and expect what the rules say that they cover; "
        "needs noderestrict[policies]",
    )
    add_output_flag(parser, reports.NAMES)
    add_size_flag(parser)
    parser.add_argument(
        "--show",
        choices=("refused", "all"),
        default="refused",
        help="refused: what is denied, undecided or not as expected; all: allowed cases too; JSON, "
        "JUnit and policy reports hold all cases in any case",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show the message, place and lookups of each case, and what was not judged",
    )
    parser.add_argument(
        "--fail-on-denied", action="store_true", help="exit with 1 if any review is denied"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge all cases of all files and return the exit code.

    Raises:
        UsageError: there is nothing to judge, or the state cannot be read.
    """
    from noderestrict.graph.graph import Graph
    from noderestrict.replay.audit.read import is_audit_log
    from noderestrict.replay.baseline import Baseline
    from noderestrict.replay.report import Options
    from noderestrict.replay.run import Run
    from noderestrict.replay.sources import MIB, head
    from noderestrict.replay.state import StateError, load_state

    files, state = _files_and_state(options)
    logs = [file for group in options.audit_log for file in group]
    if not files and not logs:
        raise UsageError("a FILE with reviews or audit events is needed; - is stdin")
    *earlier, rules = options.rules or [None]
    if len(earlier) > 1 or (earlier and "-" in (*files, *logs, *state)):
        raise UsageError("--rules: give two releases at most, and with two no stdin")
    if options.policies and (earlier or (*files, *logs, *state, *options.policies).count("-") > 1):
        raise UsageError("--policies: give one release at most, and stdin once")
    logs += (found := [file for file in files if is_audit_log(head(file))])
    files = [file for file in files if file not in found]
    max_bytes = options.max_file_mib * MIB
    show = _Terminal(options.prog, explain=options.explain)
    policy = from_flags(Policy, options)
    try:
        agents = read_agents(options.agents)
    except PolicyFileError as error:
        raise UsageError(str(error)) from None

    def prepared(release: Release | None, report: "Report") -> Run:
        graph = Graph(most_edges=None)
        try:
            listers = load_state(state, graph, max_bytes)
        except StateError as error:
            raise UsageError(str(error)) from None
        return Run(
            policy.offline(release),
            listers,
            graph,
            report,
            show.problem,
            show.progress,
            agents=agents,
        )

    baseline = None
    for release in earlier:
        baseline = Baseline(Options(out=sys.stdout, notes=sys.stderr))
        before = prepared(release, baseline)
        before.files(files, max_bytes)
        before.audit_logs(logs)
    policies = None
    if options.policies:
        policies = policy_judge(options.policies, policy.offline(rules), agents, options.prog)
    replay = prepared(rules, _report(options, rules or LATEST, (*files, *logs)))
    replay.baseline, replay.policies = baseline, policies
    show.follow(replay)
    started = time.perf_counter()
    try:
        replay.files(files, max_bytes)
        replay.audit_logs(logs)
        show.clear_progress()
        replay.end()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough.
        silence()
    else:
        if logs:
            seen, seconds = replay.seen, max(time.perf_counter() - started, 1e-9)
            not_judged = replay.summary.undecided + replay.summary.not_judged.total()
            of_agents = ""
            if replay.of_agents is not None:
                of_agents = f"{replay.of_agents.judged} requests of agents judged, "
            print(
                f"audit log: {seen.events} events, {replay.log.judged} writes of nodes judged, "
                f"{of_agents}{not_judged} not judged (--explain says why); "
                f"{seen.bytes / seconds / 1e6:.0f} MB/s",
                file=sys.stderr,
            )
            if seen.others:
                of_nodes = f", {seen.others_of_nodes} of which speak of nodes"
                print(
                    f"audit log: {seen.others} other lines or values are no audit events"
                    f"{of_nodes * bool(seen.others_of_nodes)}",
                    file=sys.stderr,
                )
    return replay.summary.exit_code(fail_on_denied=options.fail_on_denied)


class _Terminal:
    """What the operator sees beside the report, on stderr.

    Args:
        prog: program and command, which start messages.
        explain: say what was not judged.
        clock: in seconds.
    """

    def __init__(
        self,
        prog: str = f"{NAME} replay",
        *,
        explain: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prog = prog
        self._explain = explain
        self._clock = clock
        self._run: Run | None = None
        self._live = sys.stderr.isatty()
        self._every = _PROGRESS_EVERY if self._live else _LOGGED_EVERY
        self._due = clock() + self._every
        self._shown = False

    def follow(self, run: "Run") -> None:
        """Show the progress of a run from now on."""
        self._run = run

    def problem(self, problem: "Undecided | NotJudged | Unreadable") -> None:
        """Print what could not be read, and on demand what was not judged."""
        from noderestrict.replay.results import NotJudged
        from noderestrict.replay.sources import Unreadable

        self.clear_progress()
        if isinstance(problem, Unreadable):
            print(f"{self._prog}: {problem}", file=sys.stderr)
        elif self._explain and isinstance(problem, NotJudged):
            print(problem, file=sys.stderr)

    def progress(self) -> None:
        """Show now and then how much was read."""
        if self._clock() < self._due or self._run is None:
            return
        self._due = self._clock() + self._every
        seen, summary = self._run.seen, self._run.summary
        if not (seen.bytes or summary.total):
            return
        read = f"{seen.bytes / 1e6:,.0f} MB and {seen.events:,} audit events read, " * bool(
            seen.bytes
        )
        text = f"{read}{summary.total:,} cases judged, {summary.denied:,} denied"
        start, end = ("\r\033[K", "") if self._live else ("", "\n")
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)
        self._shown = self._live

    def clear_progress(self) -> None:
        """Make room for something else."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr)
            self._shown = False


def _report(options: argparse.Namespace, rules: Release, sources: tuple[str, ...]) -> "Report":
    from noderestrict.replay.report import Options

    report = reports.create(
        options.output,
        Options(
            out=sys.stdout,
            notes=sys.stderr,
            colour=has_colours(),
            explain=options.explain,
            show_all=options.show == "all",
            fail_on_denied=options.fail_on_denied,
            # In a pipe, that of $COLUMNS if it is set.
            width=shutil.get_terminal_size((_COLUMNS, 24)).columns,
            plain=not shows_unicode(),
            sources=sources,
            version=__version__,
            kubernetes=str(rules),
        ),
    )
    shows_unicode(report.on_unencodable)
    return report


def _files_and_state(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    # In "--state S FILE…" argparse gives all of them to the flag: then only the first is state.
    files, groups = options.files, getattr(options, "state", [])
    if not files and groups:
        *groups, (first, *files) = groups
        groups.append([first])
    return files, [file for group in groups for file in group]
