"""One pass or two: the same verdict."""

import json
from pathlib import Path

import msgspec
import pytest

from noderestrict import admission
from noderestrict.agents.agents import Agents, InForce
from noderestrict.agents.file import Agent, User
from noderestrict.cli.argument_types import parse_strict_rules
from noderestrict.policy.decision import Decision
from noderestrict.policy.extra import Extra
from noderestrict.policy.listers import MemoryListers
from noderestrict.policy.settings import Settings
from noderestrict.replay.cases import Case, cases
from noderestrict.replay.state import load_state
from tests.agents.builders import review as agent_review
from tests.builders import LISTERS, node, pod_status, review, update_node

CONFORMANCE = Path(__file__).parents[1] / "conformance"
STRICT = Settings.for_version(extra=Extra.of(parse_strict_rules("all")))


def verdict(
    decode: object, body: bytes, settings: Settings, listers: MemoryListers
) -> Decision | str:
    assert callable(decode)
    try:
        request = decode(body)
    except admission.ReviewError as error:
        return str(error)
    return admission.evaluate(request, settings, listers)


def as_the_api_server_writes(body: bytes) -> bytes:
    """Put the fields into the order of the API server, with what it adds."""
    document = json.loads(body)
    request = document["request"]
    order = ["uid", "kind", "resource", "subResource", "requestKind", "requestResource",
             "name", "namespace", "operation", "userInfo"]  # fmt: skip
    request |= {"requestKind": request.get("kind"), "requestResource": request.get("resource")}
    document["request"] = {key: request[key] for key in order if key in request} | request
    return json.dumps(document, separators=(",", ":")).encode()


@pytest.mark.parametrize("settings", [Settings.for_version(), STRICT], ids=["plugin", "strict"])
@pytest.mark.parametrize("folder", ["admission", "captured"])
def test_every_conformance_case_has_the_same_verdict_in_one_pass(
    folder: str, settings: Settings
) -> None:
    listers = load_state([str(CONFORMANCE / folder / "state.json")])
    bodies = [
        as_the_api_server_writes(bytes(case.review))
        for file in sorted((CONFORMANCE / folder).glob("*.jsonl"))
        for case in cases(str(file))
        if isinstance(case, Case) and case.state is None
    ]
    decoder = admission.TypedDecoder()
    raw = 0
    for _ in range(2):
        raw = 0
        for body in bodies:
            expected = verdict(admission.decode, body, settings, listers)
            assert verdict(decoder.decode, body, settings, listers) == expected
            raw += is_raw(decoder, body)
    assert raw < len(bodies) / 3


def is_raw(decoder: admission.TypedDecoder, body: bytes) -> bool:
    return type(decoder.decode(body).object) is type(admission.decode(body).object)


def warmed(*bodies: bytes) -> admission.TypedDecoder:
    decoder = admission.TypedDecoder()
    for body in bodies:
        decoder.decode(as_the_api_server_writes(body))
    return decoder


NODE = update_node(node(), node({"a": "b"}))
STATUS = update_node(node(), node({"a": "b"}), "status")


def test_a_second_review_of_the_same_resource_takes_one_pass() -> None:
    body = as_the_api_server_writes(NODE)
    decoder = admission.TypedDecoder()
    assert is_raw(decoder, body)
    assert not is_raw(decoder, body)
    assert is_raw(decoder, as_the_api_server_writes(STATUS))


@pytest.mark.parametrize(
    ("genuine", "hostile"),
    [
        # The words of one resource, before another one.
        (b'"uid":"review-uid"', b'"uid":"review-uid","resource":{"group":"","version":"v1",'
         b'"resource":"nodes"},"requestKind":{},"x":{"operation":"UPDATE","y":1}'),
        (b'"operation":"UPDATE"', b'"operation":"UPDATE","operation":"CREATE"'),
        (b'"object":{', b'"object":null,"x":{'),
        (b'"object":{', b'"object":[],"x":{'),
        (b'"labels":{"a":"b"}', b'"labels":{"a":1}'),
        (b'"oldObject":{', b'"oldObject":null,"x":{'),
        (b'"kind":"Node","metadata"', b'"kind":"Pod","metadata"'),
        (b'"userInfo":{', b'"userInfo":7,"x":{'),
        (b'"uid":"review-uid"', b'"uid":""'),
        (b'"a":"b"', b'"a":"\xff"'),
        (b'"a":"b"', b'"a":' + b"[" * 100_000),
    ],
)  # fmt: skip
def test_words_that_lie_change_no_verdict(genuine: bytes, hostile: bytes) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1", "namespace": "ns"},
           "spec": {"nodeName": "n1"}}  # fmt: skip
    decoder = warmed(NODE, STATUS, pod_status(pod, pod))
    body = as_the_api_server_writes(NODE)
    assert genuine in body
    for changed in (body.replace(genuine, hostile, 1), body.replace(genuine, hostile)):
        for settings in (Settings.for_version(), STRICT):
            expected = verdict(admission.decode, changed, settings, LISTERS)
            assert verdict(decoder.decode, changed, settings, LISTERS) == expected


def test_a_review_that_begins_with_the_words_of_another_is_judged_as_what_it_is() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1", "namespace": "ns"},
           "spec": {"nodeName": "n1"}}  # fmt: skip
    before = json.loads(as_the_api_server_writes(NODE))["request"]
    document = json.loads(as_the_api_server_writes(pod_status(pod, pod)))
    document["request"] = {"before": before, **document["request"]}
    body = json.dumps({"request": document.pop("request"), **document}, separators=(",", ":"))
    decoder = warmed(NODE, NODE)
    found = decoder.decode(body.encode())
    assert found == admission.decode(body.encode())
    assert found.resource == "pods"


OVN = Agents([Agent("ovn", (User(prefix="ovn:", group="ovns"),))])


@pytest.mark.parametrize(("groups", "is_agent"), [(("ovns",), True), (("others",), False)])
def test_only_an_agents_objects_are_fields(groups: tuple[str, ...], is_agent: bool) -> None:
    thing = {"apiVersion": "v1", "kind": "Thing"}
    body = agent_review("things", "CREATE", name="a", new=thing, user="ovn:x", groups=groups)
    found = admission.TypedDecoder(InForce(OVN)).decode(body)
    assert (found.agent is not None) is is_agent
    if is_agent:
        assert found.object == thing
    else:
        assert found == admission.decode(body, OVN)


def test_an_agent_that_is_called_as_a_node_is_has_no_objects_for_the_rules_of_nodes() -> None:
    # No file may call it so, so the policy is made by hand.
    held = Agents([Agent("driver", (User(prefix="system:node:", group="drivers"),))])
    decoder = admission.TypedDecoder(InForce(held))
    of_node = as_the_api_server_writes(NODE)
    decoder.decode(of_node)
    assert not isinstance(decoder.decode(of_node).object, msgspec.Raw)
    found = decoder.decode(of_node.replace(b"system:nodes", b"drivers"))
    assert found.agent is not None
    assert isinstance(found.object, msgspec.Raw)


def test_what_is_remembered_is_bounded() -> None:
    decoder = admission.TypedDecoder()
    for number in range(300):
        body = review("secrets", "CREATE", new={"apiVersion": "v1", "kind": "Secret"})
        changed = body.replace(b'"secrets"', f'"secrets{number}"'.encode())
        decoder.decode(as_the_api_server_writes(changed))
    first = b'"secrets0"'
    last = b'"secrets299"'
    for name, raw in ((first, False), (last, True)):
        assert is_raw(decoder, as_the_api_server_writes(body.replace(b'"secrets"', name))) is raw
