"""A replay run: judge files and audit logs, count, and report."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from noderestrict.agents.agents import Agents
from noderestrict.graph.graph import Graph
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.access import judge_access_case
from noderestrict.replay.audit.agents import AgentJudge, users_of
from noderestrict.replay.audit.log import AuditLog, Counts
from noderestrict.replay.audit.read import Seen, events
from noderestrict.replay.baseline import Baseline
from noderestrict.replay.cases import AccessCase, Case, cases
from noderestrict.replay.policies.compare import NOT_FOR_POLICIES, PolicyJudge
from noderestrict.replay.report import Report
from noderestrict.replay.results import NotJudged, Result, Summary, Undecided, asked_of
from noderestrict.replay.reviews import compare_case, judge_case
from noderestrict.replay.sources import MAX_FILE_BYTES, Unreadable

_Found = Result | Undecided | NotJudged | Unreadable


@dataclass(slots=True)
class Run:
    """Judges input, and writes each result to a report.

    Attributes:
        settings: of the rules.
        listers: shared cluster objects; audit logs add what they show.
        graph: the same objects for the Node authorizer.
        report: gets each result and, at the end, the summary.
        problem: called with everything that could not be read or judged.
        progress: called after each case, and now and then within a log.
        summary: the counts so far.
        log: how much of the audit logs was judged.
        seen: how much of them was read.
        baseline: what each verdict is compared with; if None, with what its case expects.
        policies: judge writes, and what the rules say is expected of them; None for the rules.
        agents: that are held to their node.
        of_agents: judged what agents did in audit logs; None without agents or logs.
    """

    settings: Settings
    listers: MemoryListers
    graph: Graph
    report: Report
    problem: Callable[[Undecided | NotJudged | Unreadable], None]
    progress: Callable[[], None]
    summary: Summary = field(default_factory=Summary)
    log: Counts = field(default_factory=Counts)
    seen: Seen = field(default_factory=Seen)
    baseline: Baseline | None = None
    policies: PolicyJudge | None = None
    agents: Agents = field(default_factory=Agents)
    of_agents: AgentJudge | None = None

    def files(self, files: Iterable[str], max_bytes: int = MAX_FILE_BYTES) -> None:
        """Judge all cases of some files.

        Args:
            files: their paths, ``-`` for stdin.
            max_bytes: limit for each file, unpacked.
        """
        for file in files:
            for case in cases(file, max_bytes):
                self._take(self._judged(case))
                self.progress()

    def audit_logs(self, files: Iterable[str]) -> None:
        """Judge the writes of nodes, and all requests of agents, in some audit logs.

        Args:
            files: their paths, ``-`` for stdin.
        """
        agents: AgentJudge | None = None
        users: list[str] = []
        if self.agents:
            agents = self.of_agents = AgentJudge(
                self.agents, self.settings, self.graph, self.policies
            )
            users = users_of(self.agents)
        audit = AuditLog(self.settings, self.listers, self.policies, agents)
        self.log = audit.counts
        inputs = (events(file, self.seen, self.progress, users) for file in files)
        self._take(audit.results(*inputs))

    def end(self) -> None:
        """End the report; logs that speak of nodes but show no verdict are no all-clear."""
        of_nodes, summary = self.seen.of_nodes, self.summary
        judged = self.log.judged + (self.of_agents.judged if self.of_agents is not None else 0)
        if of_nodes and not (judged or summary.already_refused or summary.unreadable):
            reads = of_nodes - summary.undecided - summary.not_judged.total()
            parts = {
                "undecided (--explain says why)": summary.undecided,
                **summary.not_judged,
                "no write, or incomplete": reads,
            }
            why = ", ".join(f"{count} {part}" for part, count in parts.items() if count > 0)
            problem = f"nothing could be judged: of {of_nodes} events of nodes, {why}"
            self._take([Unreadable("audit log", 0, problem)])
        self.report.end(summary)

    def _judged(self, case: Case | AccessCase | Unreadable) -> Iterator[_Found]:
        if isinstance(case, Unreadable):
            yield case
        elif isinstance(case, AccessCase):
            answers = judge_access_case(case, self.settings, self.graph, self.listers, self.agents)
            yield from answers if self.policies is None else map(_not_for_policies, answers)
        elif self.policies is None:
            yield judge_case(case, self.settings, self.listers, self.agents)
        else:
            yield compare_case(case, self.settings, self.listers, self.policies, self.agents)

    def _take(self, results: Iterable[_Found]) -> None:
        for found in results:
            result = found
            if self.baseline is not None and isinstance(result, Result):
                result = self.baseline.expected_of(result)
            self.summary.count(result)
            if isinstance(result, Result):
                self.report.write(result)
                continue
            if not isinstance(result, Unreadable):
                self.report.leave(result)
            self.problem(result)


def _not_for_policies(answer: Result | Unreadable) -> NotJudged | Unreadable:
    if isinstance(answer, Unreadable):
        return answer
    return NotJudged(**asked_of(answer), why=NOT_FOR_POLICIES)
