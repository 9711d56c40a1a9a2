"""Ask the Node authorizer the questions of a case."""

from collections.abc import Iterator, Mapping

import msgspec

from noderestrict import authorization
from noderestrict.api.resources import PLURALS, ObjectKey
from noderestrict.graph.graph import Graph
from noderestrict.policy.features import check_gates
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Event, QuestionsCase
from noderestrict.replay.run import Row
from noderestrict.replay.sources import Unreadable
from noderestrict.replay.state import StateError, add_objects, convert_object

_RULE = "authorizer"


def ask_case(case: QuestionsCase, settings: Settings, shared: Graph) -> Iterator[Row | Unreadable]:
    """Yield the answer to each question; changes go to a graph of the case's own.

    Args:
        case: with its events in order.
        settings: of which the feature gates count.
        shared: asked where the case brings neither state nor changes.
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
                yield _answer(case, number, event, graph, features)
            else:
                _change(graph, event)
    except (authorization.ReviewError, StateError, ValueError) as error:
        yield Unreadable(case.file, case.line, f"case {case.id!r}: {error}")


def _change(graph: Graph, event: Event) -> None:
    plural = PLURALS.get(event.kind)
    if event.op not in ("add", "update", "delete") or plural is None:
        raise ValueError(f"an event has op {event.op!r}, kind {event.kind!r}")
    value = convert_object(plural, msgspec.json.decode(event.object), f"event {event.kind}")
    if event.op == "delete":
        graph.delete(plural, value.metadata.namespace or "", value.metadata.name)
    else:
        graph.upsert(plural, value)


def _answer(
    case: QuestionsCase, number: int, event: Event, graph: Graph, features: Mapping[str, bool]
) -> Row:
    review = authorization.decode(event.subjectAccessReview)
    opinion = authorization.judge(review, graph, features)
    asked = review.attributes
    lookups: tuple[str, ...] = (opinion.reason or "no way in the graph was needed",)
    if asked is not None and opinion.allowed:
        way = graph.path(asked.node, (asked.resource, asked.namespace, asked.name))
        if way:
            lookups = (" <- ".join(str(ObjectKey(*vertex)) for vertex in way),)
    expect = event.expect
    return Row(
        id=case.id if number == 1 else f"{case.id}#{number}",
        uid="",
        node=review.node,
        what=str(asked) if asked is not None else "",
        allowed=opinion.allowed,
        code=200 if opinion.allowed else 403,
        reason="" if opinion.allowed else "NoOpinion",
        rule=_RULE,
        message=opinion.reason,
        expect=expect,
        ok=None if expect is None else expect.allowed == opinion.allowed,
        lookups=lookups,
    )
