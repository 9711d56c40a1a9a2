"""Judge SubjectAccessReviews, with the changes of the cluster between them."""

from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import NamedTuple

from noderestrict import authorization
from noderestrict.agents.agents import Agents
from noderestrict.agents.reads import Asked
from noderestrict.api.resources import PLURALS, RESOURCES, ObjectKey
from noderestrict.graph.graph import SOURCES, Graph
from noderestrict.graph.rules import Access, Opinion
from noderestrict.policy.features import check_gates
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.records import RECORDS
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import AccessCase, CaseEvent
from noderestrict.replay.results import Result
from noderestrict.replay.sources import Unreadable
from noderestrict.replay.state import StateError, add_objects, decode_object

_RULE = "authorizer"
_NO_AGENTS = Agents()


def judge_access_case(
    case: AccessCase,
    settings: Settings,
    shared: Graph,
    objects: MemoryListers | None = None,
    agents: Agents = _NO_AGENTS,
) -> Iterator[Result | Unreadable]:
    """Yield the answer to each SubjectAccessReview of a case.

    Args:
        case: with its events in order.
        settings: only the feature gates and the release matter.
        shared: the graph for cases with neither state nor changes; others get their own.
        objects: likewise.
        agents: that are held to their node.
    """
    features = settings.features
    graph, objects = shared, objects or MemoryListers()
    try:
        if case.features:
            check_gates(case.features)
            features = {**features, **case.features}
        if case.state is not None or any(event.op != "review" for event in case.events):
            graph, objects = Graph(most_edges=None), MemoryListers()
        if case.state is not None:
            add_objects(objects, case.state, "state", graph)
        number = 0
        for event in case.events:
            if event.op == "review":
                number += 1
                id_ = case.id if number == 1 else f"{case.id}#{number}"
                known = _Known(graph, objects, replace(settings, features=features), agents)
                answer = _answer(id_, event, known)
                yield replace(answer, file=case.file, line=case.line)
            else:
                _change(graph, objects, event)
    except (authorization.ReviewError, StateError, ValueError) as error:
        yield Unreadable(case.file, case.line, f"case {case.id!r}: {error}")


def _change(graph: Graph, objects: MemoryListers, event: CaseEvent) -> None:
    plural = PLURALS.get(event.kind, "")
    if event.op not in ("add", "update", "delete") or plural not in SOURCES:
        raise ValueError(f"an event has op {event.op!r}, kind {event.kind!r}")
    value = decode_object(plural, event.object, f"event {event.kind}")
    if event.op == "delete":
        graph.delete(plural, value.metadata.namespace or "", value.metadata.name)
        objects.remove(RESOURCES[plural].key(value.metadata.namespace, value.metadata.name))
    else:
        graph.upsert(plural, value)
        if plural in RECORDS:
            objects.add(RECORDS[plural](value))


class _Known(NamedTuple):
    """What reviews are judged by."""

    graph: Graph
    objects: MemoryListers
    settings: Settings
    agents: Agents

    def of_node(self, review: authorization.Review) -> Opinion:
        settings = self.settings
        return authorization.evaluate(review, self.graph, settings.features, settings.release)

    def of_agent(self, asked: Asked) -> Opinion:
        found = authorization.evaluate_agent(asked, self.objects)
        if isinstance(found, Opinion):
            return found
        return authorization.reached(self.of_node(authorization.reach_review(asked, found)), found)


def _answer(id_: str, event: CaseEvent, known: _Known) -> Result:
    review = authorization.decode(event.subjectAccessReview, known.agents)
    if review.asked is not None:
        return _of_agent(id_, event, review.asked, known.of_agent(review.asked))
    graph, opinion = known.graph, known.of_node(review)
    asked = review.access
    lookups: tuple[str, ...] = (opinion.reason or "no path in the graph was needed",)
    if asked is not None and opinion.allowed:
        path = graph.path(asked.node, (asked.resource, asked.namespace, asked.name))
        if path:
            lookups = (" <- ".join(str(ObjectKey(*vertex)) for vertex in path),)
    expect = event.expect
    return Result(
        id=id_,
        node=review.node,
        what=str(asked) if asked is not None else "",
        operation=asked.verb if asked is not None else "",
        resource=_path(asked) if asked is not None else "",
        namespace=asked.namespace if asked is not None else "",
        name=asked.name if asked is not None else "",
        allowed=opinion.allowed,
        code=HTTPStatus.OK if opinion.allowed else HTTPStatus.FORBIDDEN,
        reason="" if opinion.allowed else "NoOpinion",
        rule=_RULE,
        message=opinion.reason,
        lookups=lookups,
        expect=expect,
        ok=None if expect is None else expect.allowed == opinion.allowed,
    )


def _of_agent(id_: str, event: CaseEvent, asked: Asked, opinion: Opinion) -> Result:
    """Return the answer to an agent: denied, or left to RBAC, which is taken for allowed."""
    expect, allowed = event.expect, not opinion.denied
    return Result(
        id=id_,
        node=None,
        agent=asked.agent.name,
        user=asked.user.name,
        what=str(asked),
        operation=asked.verb,
        resource=_path(asked),
        namespace=asked.namespace,
        name=asked.name,
        allowed=allowed,
        code=HTTPStatus.OK if allowed else HTTPStatus.FORBIDDEN,
        reason="" if allowed else "Forbidden",
        rule=opinion.rule or _RULE,
        message=opinion.reason,
        detail=opinion.detail,
        lookups=("left to RBAC",) if allowed else (),
        expect=expect,
        ok=None if expect is None else expect.allowed == allowed,
    )


def _path(asked: Access | Asked) -> str:
    return f"{asked.resource}/{asked.sub_resource}" if asked.sub_resource else asked.resource
