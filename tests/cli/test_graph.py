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
    assert "no node reaches it" in asked(capsys, "why", "worker-1", "cm", "default/none")[2]
    assert "no pod is bound to node worker-9" in asked(capsys, "why", "worker-9", "pv", "pv-7")[2]


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
    assert asked(capsys, "reachable", "worker-9")[:2] == (0, "NODE  OBJECT  THROUGH\n")


def test_who_lists_the_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = asked(capsys, "who", "PV", "pv-7", "--output", "json")
    assert [(row["node"], row["reachable"]) for row in json.loads(out)] == [("worker-2", True)]


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
