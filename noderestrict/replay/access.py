"""Judge SubjectAccessReviews, with the changes of the cluster between them."""

from collections.abc import Iterator
from dataclasses import replace

from noderestrict import authorization
from noderestrict.api.resources import PLURALS, ObjectKey
from noderestrict.graph.graph import SOURCES, Graph
from noderestrict.graph.rules import Access
from noderestrict.policy.features import check_gates
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import AccessCase, CaseEvent
from noderestrict.replay.results import Result
from noderestrict.replay.sources import Unreadable
from noderestrict.replay.state import StateError, add_objects, decode_object

_RULE = "authorizer"


def judge_access_case(
    case: AccessCase, settings: Settings, shared: Graph
) -> Iterator[Result | Unreadable]:
    """Yield the answer to each SubjectAccessReview of a case.

    Args:
        case: with its events in order.
        settings: only the feature gates and the release matter.
        shared: the graph for cases with neither state nor changes; others get their own.
    """
    features = settings.features
    graph = shared
    try:
        if case.features:
            check_gates(case.features)
            features = {**features, **case.features}
        if case.state is not None or any(event.op != "review" for event in case.events):
            graph = Graph(most_edges=None)
        if case.state is not None:
            add_objects(MemoryListers(), case.state, "state", graph)
        number = 0
        for event in case.events:
            if event.op == "review":
                number += 1
                id_ = case.id if number == 1 else f"{case.id}#{number}"
                answer = _answer(id_, event, graph, replace(settings, features=features))
                yield replace(answer, file=case.file, line=case.line)
            else:
                _change(graph, event)
    except (authorization.ReviewError, StateError, ValueError) as error:
        yield Unreadable(case.file, case.line, f"case {case.id!r}: {error}")


def _change(graph: Graph, event: CaseEvent) -> None:
    plural = PLURALS.get(event.kind, "")
    if event.op not in ("add", "update", "delete") or plural not in SOURCES:
        raise ValueError(f"an event has op {event.op!r}, kind {event.kind!r}")
    value = decode_object(plural, event.object, f"event {event.kind}")
    if event.op == "delete":
        graph.delete(plural, value.metadata.namespace or "", value.metadata.name)
    else:
        graph.upsert(plural, value)


def _answer(id_: str, event: CaseEvent, graph: Graph, settings: Settings) -> Result:
    review = authorization.decode(event.subjectAccessReview)
    opinion = authorization.evaluate(review, graph, settings.features, settings.release)
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
        code=200 if opinion.allowed else 403,
        reason="" if opinion.allowed else "NoOpinion",
        rule=_RULE,
        message=opinion.reason,
        lookups=lookups,
        expect=expect,
        ok=None if expect is None else expect.allowed == opinion.allowed,
    )


def _path(asked: Access) -> str:
    return f"{asked.resource}/{asked.sub_resource}" if asked.sub_resource else asked.resource
