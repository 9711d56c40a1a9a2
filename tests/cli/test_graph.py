"""An operator asks what a node's credential gives."""

import json
from pathlib import Path

import pytest

from noderestrict.cli import main

STATE = str(Path(__file__).parents[2] / "examples" / "authorizer-state.json")


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["graph", *arguments, "--state", STATE])
    return code, *capsys.readouterr()


def test_why_shows_the_way_through_pod_claim_and_volume(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = asked(capsys, "why", "worker-2", "secret", "storage/disk-key")
    assert code == 0
    through = "pod default/db-0 ← persistentvolumeclaim default/data-db-0 ← persistentvolume pv-7"
    assert through in out


def test_why_says_what_is_missing_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = asked(capsys, "why", "worker-1", "secrets", "storage/disk-key")
    assert (code, out) == (1, "")
    assert "nothing on node worker-1 refers to secret storage/disk-key" in err
    assert "nodes that reach it: worker-2" in err


def test_reachable_lists_everything_and_nothing_of_other_nodes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = asked(capsys, "reachable", "worker-1", "--output", "json")
    found = {(row["resource"], row["name"]) for row in json.loads(out)}
    assert found == {
        ("pods", "myapp-7d4b9c6f5-x2x9k"),
        ("secrets", "mysecret"),
        ("serviceaccounts", "myapp"),
    }


def test_who_lists_the_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = asked(capsys, "who", "PV", "pv-7", "--output", "json")
    assert [(row["node"], row["reachable"]) for row in json.loads(out)] == [("worker-2", True)]


UNKNOWN = "is unknown: no object of --state is or names it"


@pytest.mark.parametrize(
    ("question", "unknown"),
    [
        (("reachable", "worker-9"), "node worker-9"),
        (("why", "worker-9", "pv", "pv-7"), "node worker-9"),
        (("why", "worker-1", "cm", "default/none"), "configmap default/none"),
        (("who", "secret", "default/none"), "secret default/none"),
        (("who", "secret", "other/mysecret"), "secret other/mysecret"),
        (("who", "pv", "pv-8"), "persistentvolume pv-8"),
    ],
)
@pytest.mark.parametrize("output", ["table", "json", "dot"])
def test_an_unknown_node_or_object_is_exit_2(
    question: tuple[str, ...], unknown: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = asked(capsys, *question, "--output", output)
    assert (code, out) == (2, "")
    assert err == f"noderestrict graph: {unknown} {UNKNOWN}\n"


def test_what_no_node_reaches_is_known_if_the_state_has_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    state.write_text(
        json.dumps(
            {
                "nodes": [{"metadata": {"name": "idle"}}],
                "secrets": [{"metadata": {"namespace": "default", "name": "unused"}}],
                "pods": [
                    {"metadata": {"namespace": "default", "name": "p"}, "spec": {"nodeName": "n"}}
                ],
            }
        )
    )
    flags = ("--state", str(state))
    header = "NODE  OBJECT  THROUGH\n"
    assert main(["graph", "reachable", "idle", *flags]) == 0
    assert main(["graph", "who", "secret", "default/unused", *flags]) == 0
    assert capsys.readouterr().out == header * 2
    assert main(["graph", "why", "idle", "secret", "default/unused", *flags]) == 1
    assert "no pod is bound to node idle" in capsys.readouterr().err
    assert main(["graph", "why", "n", "secret", "default/unused", *flags]) == 1
    assert "no node reaches it" in capsys.readouterr().err
    assert main(["graph", "who", "secret", "default/unusd", *flags]) == 2
    # A file in which it is a List of its own says the same.
    item = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "a", "name": "b"}}
    state.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [item]}))
    assert main(["graph", "who", "secret", "a/b", *flags]) == 0


def test_a_name_without_a_namespace_is_in_that_of_the_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = asked(capsys, "who", "secret", "mysecret", "-n", "default", "-o", "json")
    assert code == 0
    assert [row["namespace"] for row in json.loads(out)] == ["default"]
    assert asked(capsys, "who", "secret", "default/mysecret", "-n", "other")[0] == 0
    assert asked(capsys, "who", "pv", "pv-7", "--namespace", "default")[0] == 0
    code, _, err = asked(capsys, "who", "secret", "mysecret", "-n", "other")
    assert (code, "secret other/mysecret is unknown" in err) == (2, True)


def test_dot_quotes_every_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pod = {"metadata": {"namespace": "default", "name": 'a"\\b'}, "spec": {"nodeName": "n"}}
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"pods": [pod]}))
    assert main(["graph", "reachable", "n", "--state", str(state), "--output", "dot"]) == 0
    assert '"node n" -> "pod default/a\\"\\\\b";' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("deployment", "default/a", "KIND 'deployment' is not one of pods, secrets"),
        ("secret", "a", "'a': secrets are namespaced; write NAMESPACE/NAME"),
        ("secret", "a/b/c", "'a/b/c': secrets are namespaced"),
        ("pv", "default/a", "'default/a': persistentvolumes are cluster-scoped"),
    ],
)
def test_what_cannot_be_asked_is_named(
    capsys: pytest.CaptureFixture[str], kind: str, name: str, message: str
) -> None:
    assert main(["graph", "who", kind, name, "--state", STATE]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "reachable", "n", "--state", "nowhere.json"]) == 2
    assert "--state nowhere.json: No such file or directory" in capsys.readouterr().err


def test_without_a_cluster_the_message_says_what_to_give(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["graph", "reachable", "n"]) == 2
    assert "--kubeconfig" in capsys.readouterr().err
