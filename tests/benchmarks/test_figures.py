"""What the benchmarks make of what they measured."""

import gzip
import json
from dataclasses import replace

import pytest
from aiohttp.test_utils import make_mocked_request

from tests.benchmarks import pods, scale
from tests.benchmarks.profile import REQUESTS, REST, explained, part_of, parts, samples
from tests.benchmarks.ratios import ratio


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def profile(*stacks: tuple[tuple[str, ...], int]) -> bytes:
    """Return a profile of stacks, the called function first, with their nanoseconds."""
    names = ["", *sorted({name for stack, _ in stacks for name in stack})]
    body = b""
    for stack, nanoseconds in stacks:
        # Every other sample is packed, as encoders may do it.
        ids = b"".join(varint(300 + names.index(name)) for name in stack)
        body += field(2, field(1, ids) + field(2, varint(1) + varint(nanoseconds)))
    for number, name in enumerate(names):
        if name:
            line = field(1, 500 + number)
            body += field(4, field(1, 300 + number) + field(4, line))
            body += field(5, field(1, 500 + number) + field(2, number))
    for name in names:
        body += field(6, name.encode())
    return gzip.compress(body)


CONVERSION = (
    "runtime.mallocgc",
    "k8s.io/apiserver/pkg/admission/plugin/cel.objectToResolveVal",
    "k8s.io/apiserver/pkg/admission/plugin/webhook/validating.(*validatingDispatcher).Dispatch",
    "net/http.(*conn).serve",
)
WATCH = (
    "encoding/json.Marshal",
    "k8s.io/apiserver/pkg/endpoints/handlers.(*WatchServer).HandleHTTP",
    "net/http.(*conn).serve",
)


def test_each_sample_of_a_profile_counts_as_one_part() -> None:
    data = profile((CONVERSION, 20_000_000), (WATCH, 300_000_000), (("main.main",), 10_000_000))
    assert [one.functions for one in samples(data)] == [CONVERSION, WATCH, ("main.main",)]
    found = {name: seconds for name, seconds in parts(data).items() if seconds}
    assert found == {
        "CEL conversion": pytest.approx(0.02),
        "watch encoding": pytest.approx(0.3),
        REST: pytest.approx(0.01),
    }


def test_what_a_webhook_is_asked_is_told_from_what_its_conditions_cost() -> None:
    dispatch = CONVERSION[2]
    assert part_of(("x", dispatch)) == "webhook dispatch"
    assert part_of(("github.com/google/cel-go/cel.(*prog).Eval", dispatch)) == "CEL evaluation"
    assert part_of(("k8s.io/kubernetes/plugin/pkg/admission/noderestriction.Admit",)) == "admission"
    assert part_of(("k8s.io/apiserver/plugin/pkg/authorizer/webhook.(*x).Authorize",)) == (
        "authorization webhook"
    )


def test_what_is_done_within_an_update_is_told_from_the_watch_cache() -> None:
    update = "k8s.io/apiserver/pkg/storage/cacher.(*CacheDelegator).GuaranteedUpdate"
    served = "net/http.(*conn).serve"
    assert part_of(("x", "k8s.io/apiserver/pkg/admission.Validate", update, served)) == "admission"
    assert part_of(("x", update, served)) == "requests"
    dispatch = "k8s.io/apiserver/pkg/storage/cacher.(*Cacher).dispatchEvents"
    assert part_of(("x", dispatch)) == "watch cache"


def test_what_is_left_in_requests_themselves_is_not_explained() -> None:
    difference = {"CEL conversion": 60.0, "garbage collection": 20.0, REQUESTS: 15.0, REST: 5.0}
    assert explained(difference) == pytest.approx(0.8)


def test_an_unknown_wire_type_is_no_profile() -> None:
    with pytest.raises(ValueError, match="wire type 1"):
        parts(gzip.compress(varint(9) + bytes(8)))


def test_what_falls_on_a_whole_round_cancels_out() -> None:
    others = [100.0, 400.0, 900.0, 50.0]
    found = ratio([1.2 * one for one in others], others)
    assert found.value == pytest.approx(1.2)
    assert found.low == pytest.approx(1.2)
    assert found.high == pytest.approx(1.2)


def test_the_interval_says_how_far_rounds_differ() -> None:
    ones = [1.0, 2.0, 1.1, 1.9, 1.0, 2.0]
    found = ratio(ones, [1.0] * 6)
    assert 1 < found.low < found.value < found.high < 2
    assert found == ratio(ones, [1.0] * 6)


def test_a_larger_cluster_brings_more_of_everything() -> None:
    small, large = scale.Cluster(1_000, 30), scale.Cluster(15_000, 30)
    for rates_of in scale.SITUATIONS.values():
        less, more = rates_of(small), rates_of(large)
        assert all(more[kind] >= 14.99 * rate for kind, rate in less.items())


def test_every_situation_brings_what_a_steady_cluster_brings_and_more() -> None:
    of = scale.Cluster()
    calm = scale.steady(of)
    for rates_of in scale.SITUATIONS.values():
        assert all(rate >= calm[kind] for kind, rate in rates_of(of).items())


def test_a_node_without_pods_is_asked_about_three_times_in_five_minutes() -> None:
    assert scale.steady(scale.Cluster(3_000, 0))[scale.QUESTION] == pytest.approx(30)


def test_api_servers_that_cannot_remember_all_nodes_ask_every_ten_seconds() -> None:
    many = scale.Cluster(15_000, 0, api_servers=3)
    assert scale.steady(many)[scale.QUESTION] == pytest.approx(3_000 + 50)
    assert scale.steady(replace(many, api_servers=4))[scale.QUESTION] == pytest.approx(100 + 50)


def test_cores_are_the_sum_of_what_each_kind_takes() -> None:
    micros = {scale.QUESTION: 100.0, scale.TOKEN: 50.0, scale.EVENT: 200.0}
    rates = {scale.QUESTION: 5_000.0, scale.TOKEN: 2_000.0, scale.EVENT: 1_000.0}
    assert scale.cores(rates, micros) == pytest.approx(0.5 + 0.1 + 0.2)


async def test_a_list_for_the_benchmark_of_fairness_never_ends() -> None:
    request = make_mocked_request("GET", f"/endless/api/v1/pods?limit=2&continue={pods.TOTAL - 1}")
    answer = json.loads((await pods._endless(request)).text or "")
    names = [item["metadata"]["name"].rpartition("-")[2] for item in answer["items"]]
    assert names == [str(pods.TOTAL - 1), "0"]
    assert answer["metadata"]["continue"] == str(pods.TOTAL + 1)
