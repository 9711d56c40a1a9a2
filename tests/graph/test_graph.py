"""The graph equals one that is built from the current objects, and a walk over them."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from noderestrict.api.resources import RESOURCES
from noderestrict.graph.edges import Vertex, pod_edges, volume_edges
from noderestrict.graph.graph import Graph

NODES = ("n1", "n2", "")
NAMES = ("a", "b", "c")


def convert(plural: str, value: dict[str, Any]) -> Any:
    return msgspec.convert(value, RESOURCES[plural].struct)


def pod(name: str, node: str, secrets: list[str], claims: list[str], *, mirror: bool) -> Any:
    annotations = {"kubernetes.io/config.mirror": ""} if mirror else {}
    volumes: list[dict[str, Any]] = [{"name": s, "secret": {"secretName": s}} for s in secrets]
    volumes += [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    return convert(
        "pods",
        {
            "metadata": {"namespace": "ns", "name": name, "annotations": annotations},
            "spec": {"nodeName": node, "serviceAccountName": "sa", "volumes": volumes},
        },
    )


def volume(name: str, claim: str | None, secret: str) -> Any:
    spec: dict[str, Any] = {"csi": {"nodeStageSecretRef": {"namespace": "ns", "name": secret}}}
    if claim is not None:
        spec["claimRef"] = {"namespace": "ns", "name": claim}
    return convert("persistentvolumes", {"metadata": {"name": name}, "spec": spec})


def attachment(name: str, node: str) -> Any:
    value = {"metadata": {"name": name}, "spec": {"nodeName": node}}
    return convert("volumeattachments", value)


names = st.sampled_from(NAMES)
lists = st.lists(names, max_size=3)
changes = st.one_of(
    st.builds(
        lambda n, node, s, c, m: ("pods", "ns", n, pod(n, node, s, c, mirror=m)),
        names, st.sampled_from(NODES), lists, lists, st.booleans(),
    ),
    st.builds(
        lambda n, c, s: ("persistentvolumes", "", n, volume(n, c, s)),
        names, st.none() | names, names,
    ),
    st.builds(
        lambda n, node: ("volumeattachments", "", n, attachment(n, node)),
        names, st.sampled_from(NODES),
    ),
    st.builds(lambda n: ("pods", "ns", n, None), names),
    st.builds(lambda n: ("persistentvolumes", "", n, None), names),
    st.builds(lambda n: ("volumeattachments", "", n, None), names),
)  # fmt: skip


def apply(graph: Graph, change: tuple[str, str, str, Any]) -> None:
    plural, namespace, name, value = change
    if value is None:
        graph.delete(plural, namespace, name)
    else:
        graph.upsert(plural, value)


def walk(objects: dict[tuple[str, str, str], Any], node: str) -> set[Vertex]:
    """Return what a node reaches, by looking at every object."""
    found: set[Vertex] = set()
    for (plural, _, _), value in objects.items():
        if plural == "pods" and value.spec.nodeName == node:
            found |= pod_edges(value)
    for key, value in objects.items():
        if key[0] == "persistentvolumes":
            claim, edges = volume_edges(value)
            if claim in found:
                found |= edges
        elif key[0] == "volumeattachments" and value.spec.nodeName == node:
            found.add(key)
    return found


@given(st.lists(changes, max_size=40))
@settings(max_examples=300, deadline=None)
def test_after_any_changes_the_graph_equals_a_new_one_and_a_walk(
    sequence: list[tuple[str, str, str, Any]],
) -> None:
    graph = Graph()
    objects: dict[tuple[str, str, str], Any] = {}
    for change in sequence:
        apply(graph, change)
        key, value = change[:3], change[3]
        if value is None:
            objects.pop(key, None)
        else:
            objects[key] = value
    rebuilt = Graph()
    for (plural, _, _), value in objects.items():
        rebuilt.upsert(plural, value)
    assert graph.snapshot() == rebuilt.snapshot()
    for node in ("n1", "n2"):
        assert set(graph.reachable(node)) == graph.paths(node).keys() == walk(objects, node)
        for vertex in graph.reachable(node):
            way = graph.path(node, vertex)
            assert way == graph.paths(node)[vertex]
            assert way[0] == ("nodes", "", node)
            assert way[-1] == vertex
            assert node in graph.who(vertex)


def test_a_pod_that_moves_takes_its_secrets_along() -> None:
    graph = Graph()
    graph.upsert("pods", pod("p", "n1", ["s"], [], mirror=False))
    assert graph.reaches("n1", ("secrets", "ns", "s"))
    graph.upsert("pods", pod("p", "n2", ["s"], [], mirror=False))
    assert not graph.reaches("n1", ("secrets", "ns", "s"))
    assert graph.who(("secrets", "ns", "s")) == ["n2"]


def test_a_node_is_known_by_what_it_reaches_and_an_object_by_who_reaches_it() -> None:
    graph = Graph()
    graph.upsert("pods", pod("p", "n1", ["s"], [], mirror=False))
    graph.upsert("volumeattachments", attachment("a", "n2"))
    for known in (("nodes", "", "n1"), ("nodes", "", "n2"), ("secrets", "ns", "s")):
        assert graph.knows(known)
    for unknown in (("nodes", "", "s"), ("secrets", "ns", "n1"), ("secrets", "", "s")):
        assert not graph.knows(unknown)


def test_a_mirror_pod_gives_only_itself() -> None:
    graph = Graph()
    graph.upsert("pods", pod("p", "n1", ["s"], ["c"], mirror=True))
    assert graph.reachable("n1") == [("pods", "ns", "p")]


def secrets(number: int, prefix: str = "s") -> list[str]:
    return [f"{prefix}{one}" for one in range(number)]


def test_a_pod_that_names_too_much_leads_only_to_itself_and_its_account() -> None:
    graph = Graph(most_edges=10)
    graph.upsert("pods", pod("p", "n1", secrets(8), [], mirror=False))
    assert len(graph.reachable("n1")) == 10
    assert not graph.has_large_pods("n1")
    graph.upsert("pods", pod("p", "n1", secrets(9), [], mirror=False))
    few = [("pods", "ns", "p"), ("serviceaccounts", "ns", "sa")]
    assert graph.reachable("n1") == few
    assert graph.has_large_pods("n1")
    graph.upsert("pods", pod("p", "n2", ["x" * 254], [], mirror=False))
    assert graph.reachable("n1") == []
    assert graph.reachable("n2") == few
    assert graph.has_large_pods("n2")
    assert not graph.has_large_pods("n1")
    graph.upsert("pods", pod("p", "n2", secrets(8), [], mirror=False))
    assert len(graph.reachable("n2")) == 10
    assert not graph.has_large_pods("n2")


def test_pods_that_name_much_share_a_bound() -> None:
    """Else thousands of pods that each stay within theirs fill the memory."""
    graph = Graph(most_of_many=500)
    for number in range(10):
        graph.upsert("pods", pod(f"p{number}", f"n{number}", secrets(198), [], mirror=False))
    held = [len(graph.reachable(f"n{number}")) for number in range(10)]
    assert held == [200, 200] + [2] * 8
    assert not graph.has_large_pods("n1")
    assert graph.has_large_pods("n2")
    # A pod that is there keeps its place when it is changed, and leaves it when it goes.
    graph.upsert("pods", pod("p1", "n1", secrets(298), [], mirror=False))
    assert len(graph.reachable("n1")) == 300
    graph.delete("pods", "ns", "p0")
    graph.upsert("pods", pod("p2", "n2", secrets(198), [], mirror=False))
    assert len(graph.reachable("n2")) == 200
    assert not graph.has_large_pods("n2")
    # Others are held however many they are.
    for number in range(20):
        graph.upsert("pods", pod(f"q{number}", "n", secrets(98), [], mirror=False))
    assert not graph.has_large_pods("n")


def test_what_is_wanted_of_a_large_pod_is_led_to() -> None:
    wanted = {("secrets", "ns", "s7"), ("persistentvolumeclaims", "ns", "c3")}
    graph = Graph(most_edges=10, wanted=lambda: wanted)
    graph.upsert("persistentvolumes", volume("v", "c3", "key"))
    graph.upsert("pods", pod("p", "n1", secrets(20), secrets(20, "c"), mirror=False))
    assert wanted <= set(graph.reachable("n1"))
    assert graph.reaches("n1", ("secrets", "ns", "key"))
    assert len(graph.reachable("n1")) == 6
    assert graph.claims_to({("secrets", "ns", "key")}) == {("persistentvolumeclaims", "ns", "c3")}
    graph.delete("pods", "ns", "p")
    assert graph.snapshot() == {}


def test_a_graph_without_a_bound_holds_all() -> None:
    graph = Graph(most_edges=None)
    graph.upsert("pods", pod("p", "n1", [*secrets(5_000), "x" * 1000], [], mirror=False))
    assert len(graph.reachable("n1")) == 5_003
