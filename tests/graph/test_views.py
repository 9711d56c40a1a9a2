"""What an operator names is found as kubectl finds it."""

import pytest

from noderestrict.graph.views import vertex_of


@pytest.mark.parametrize(
    ("kind", "name", "namespace", "expected"),
    [
        ("secrets", "ns/a", None, ("secrets", "ns", "a")),
        ("Secret", "ns/a", "other", ("secrets", "ns", "a")),
        ("cm", "a", "ns", ("configmaps", "ns", "a")),
        ("pv", "a", None, ("persistentvolumes", "", "a")),
        ("PersistentVolume", "a", "ns", ("persistentvolumes", "", "a")),
    ],
)
def test_an_object_has_a_namespace_of_its_own_or_the_given_one_or_none(
    kind: str, name: str, namespace: str | None, expected: tuple[str, str, str]
) -> None:
    assert vertex_of(kind, name, namespace) == expected


@pytest.mark.parametrize("namespace", [None, ""])
@pytest.mark.parametrize("name", ["a", "/a", "ns/", "a/b/c"])
def test_what_is_namespaced_needs_a_namespace_and_a_name(name: str, namespace: str | None) -> None:
    with pytest.raises(ValueError, match="secrets are namespaced; write NAMESPACE/NAME"):
        vertex_of("secrets", name, namespace)


@pytest.mark.parametrize("name", ["ns/a", "/a", ""])
def test_what_is_not_namespaced_has_a_name_alone(name: str) -> None:
    with pytest.raises(ValueError, match="persistentvolumes are cluster-scoped; write NAME"):
        vertex_of("pv", name)


def test_what_no_node_reaches_is_no_kind() -> None:
    with pytest.raises(ValueError, match="KIND 'deployments' is not one of pods, secrets,"):
        vertex_of("deployments", "ns/a")
