"""Names, image, labels and numbers that an installation has of its own, in everything rendered."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.render.manifests import OVERLAYS, all_files
from noderestrict.render.overlay import components
from noderestrict.render.registration import parse_registration
from tests.render.overlays import FILES, build

FLAGS = (
    "--namespace=isolation", "--image=registry.example.com:5000/n/r:2@sha256:" + "0" * 64,
    "--replicas=3", "--webhook-name=node.rules", "--port=9443", "--labels=team=a,example.com/x=",
)  # fmt: skip
#: What stands for the defaults of these flags.
DEFAULTS = re.compile(
    "|".join(
        (
            "namespace: noderestrict$",
            r"namespace\\?\":\\?\"noderestrict",
            "noderestrict/noderestrict-",
            "noderestrict[.]noderestrict",
            "image: noderestrict",
            r"\b8443\b",
            "--webhook-configuration=noderestrict",
            "metadata.name: noderestrict$",
        )
    ),
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("rendered")
    assert main(["render", str(folder), *FLAGS]) == 0
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in folder.rglob("*")
        if file.is_file()
    }


def manifests(files: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in files.items() if not path.startswith("chart/")}


def test_no_file_keeps_a_default_that_a_flag_replaces(files: dict[str, str]) -> None:
    assert files.keys() == all_files().keys()
    assert sum(len(DEFAULTS.findall(text)) for text in manifests(dict(FILES)).values()) > 50
    for path, text in manifests(files).items():
        assert not DEFAULTS.search(text), path


def test_an_installation_of_other_names_hangs_together(files: dict[str, str]) -> None:
    for overlay in OVERLAYS:
        objects = build(overlay, files=files)
        (registration,) = (one for one in objects if one["kind"].startswith("ValidatingWebhook"))
        (server,) = (one for one in objects if one["kind"] in ("Deployment", "DaemonSet"))
        (namespace,) = (one for one in objects if one["kind"] == "Namespace")
        (role,) = (one for one in objects if one["kind"] == "ClusterRole")
        assert namespace["metadata"]["name"] == "isolation"
        assert registration["metadata"]["name"] == "node.rules"
        assert any(rule.get("resourceNames") == ["node.rules"] for rule in role["rules"])
        (container,) = server["spec"]["template"]["spec"]["containers"]
        assert container["image"] == FLAGS[1].partition("=")[2]
        assert "--tls-secret=isolation/noderestrict-tls" in container["args"]
        assert "--port=9443" in container["args"]
        expected = [one for one in container["args"] if one.startswith("--expected-registration=")]
        parsed = parse_registration(expected[-1].partition("=")[2])
        assert parsed.name == "node.rules"
        client = registration["webhooks"][0]["clientConfig"]
        if overlay == "control-plane":
            assert client["url"] == parsed.client_config["url"] == "https://127.0.0.1:9443/validate"
        else:
            assert server["spec"]["replicas"] == 3
            assert client["service"]["namespace"] == "isolation"
            assert parsed.client_config["service"]["namespace"] == "isolation"
        for one in objects:
            labels = one["metadata"]["labels"]
            assert labels["team"] == "a"
            assert labels["example.com/x"] == ""
            assert labels["app.kubernetes.io/part-of"] == "noderestrict"
            assert one["metadata"].get("namespace", "isolation") == "isolation"


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--image=a b", "'a b' is no name of an image"),
        ("--image=", "'' is no name of an image"),
        ("--image=Registry/x", "'Registry/x' is no name of an image"),
        ("--namespace=a.b", "'a.b' is not the name of a namespace"),
        ("--namespace=" + "a" * 64, "is not the name of a namespace"),
        ("--replicas=0", "'0' is not a whole number above 0"),
        ("--port=70000", "70000"),
        ("--webhook-name=a_b", "'a_b' is no name of an object"),
        ("--labels=a", "'a' is no label KEY=VALUE"),
        ("--labels=a=b c", "'a=b c' is no label KEY=VALUE"),
        ("--labels==b", "'=b' is no label KEY=VALUE"),
        ("--labels=a=b,a=c", "label 'a' is given twice"),
        ("--labels=app.kubernetes.io/name=x", "is one of ours"),
        ("--ca-file=/none", "/none: No such file"),
    ],
)
@pytest.mark.parametrize("words", [["{}"], ["overlay", "self-signed", "{}"]])
def test_a_bad_value_is_told_with_its_flag_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], flag: str, told: str
) -> None:
    folder = tmp_path / "m"
    given = [word.format(folder) for word in words]
    try:
        code = main(["render", *given, flag])
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert told in error
    assert flag.partition("=")[0].replace("--ca-file", "--ca-bundle") in error
    assert not folder.exists()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["render", "overlay", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("part", ["install", "enforce"])
def test_one_overlay_is_printed_as_kustomize_would_build_it(
    capsys: pytest.CaptureFixture[str], overlay: str, part: str
) -> None:
    text = printed(capsys, overlay, "--part", part)
    assert list(yaml.safe_load_all(text)) == build(overlay, parts=[part])
    # No anchors, for people and for tools that know none.
    assert not re.search(r": [&*][a-z0-9]+$", text, re.MULTILINE)
    assert printed(capsys, overlay, "--part", part) == text


def test_an_overlay_is_printed_with_components_and_what_kustomize_generates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = [one for one in components(FILES) if one != "dedicated-nodes"]
    text = printed(capsys, "self-signed", "--components", ",".join(chosen))
    found: dict[tuple[str, str], Any] = {}
    for one in yaml.safe_load_all(text):
        found[one["kind"], one["metadata"]["name"]] = one
    assert ("ServiceMonitor", "noderestrict") in found
    assert ("ValidatingAdmissionPolicy", "noderestrict-mirror-pods") in found
    dashboard = found["ConfigMap", "noderestrict-dashboard"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["dashboard.json"])["uid"] == "noderestrict"


def test_an_overlay_is_written_to_a_folder_in_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", "overlay", "audit", str(tmp_path / "o")]) == 0
    capsys.readouterr()
    for part in ("install", "enforce"):
        assert (tmp_path / "o" / f"{part}.yaml").read_text() == printed(
            capsys, "audit", "--part", part
        )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "OVERLAY 'nothing' is not one of control-plane, self-signed"),
        (["audit", "--components", "x"], "--components: 'x' is not one of client-verification"),
    ],
)
def test_an_unknown_overlay_or_component_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["render", "overlay", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_authorizers_image_must_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["render", "authorizer", str(tmp_path / "a"), "--image", "a b"])
    assert "argument --image: 'a b' is no name of an image" in capsys.readouterr().err
