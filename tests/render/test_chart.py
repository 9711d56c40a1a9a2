"""The chart, as far as it can be judged without Helm; tests/e2e renders and installs it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict import __version__
from noderestrict.cli import main
from noderestrict.render.chart.markers import Markers, only_if
from noderestrict.render.manifests import Options, all_files
from noderestrict.render.names import Installation

ROOT = Path(__file__).parents[2]
CHART = {
    path.removeprefix("chart/"): text
    for path, text in all_files().items()
    if path.startswith("chart/")
}
TEMPLATES = {path: text for path, text in CHART.items() if path.startswith("templates/")}
VALUES: dict[str, Any] = yaml.safe_load(CHART["values.yaml"])
SCHEMA: dict[str, Any] = json.loads(CHART["values.schema.json"])
#: Of Helm itself; no value of ours.
GLOBAL = "global"


def leaves(schema: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Return the schema of each value, by its path."""
    found: dict[str, dict[str, Any]] = {}
    for name, one in schema["properties"].items():
        at = f"{path}{name}"
        found |= {at: one} if "default" in one else leaves(one, f"{at}.")
    return found


def at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name]
    return value


def test_chart_and_image_have_the_version_of_the_package() -> None:
    chart = yaml.safe_load(CHART["Chart.yaml"])
    assert chart["appVersion"] == __version__
    assert chart["version"] == __version__
    # The image has it too, unless somebody chooses another.
    assert VALUES["image"]["tag"] == ""


def test_values_schema_and_documentation_name_the_same_values_and_defaults() -> None:
    known = leaves(SCHEMA)
    assert known.pop(GLOBAL)
    assert len(known) > 20
    for path, schema in known.items():
        assert at(VALUES, path) == schema["default"], path
        assert f"| `{path}` | `{json.dumps(schema['default'])}` |" in CHART["README.md"]
        assert schema["description"] in CHART["README.md"]
        if "enum" in schema:
            assert schema["default"] in schema["enum"]
    documented = re.findall(r"^\| `([^`]+)` \|", CHART["README.md"], re.MULTILINE)
    assert documented == list(known)


def test_every_value_is_used_and_every_value_that_is_used_is_known() -> None:
    text = "".join(TEMPLATES.values())
    used = set(re.findall(r"[.]Values[.]([A-Za-z.]+)", text))
    known = set(leaves(SCHEMA)) - {GLOBAL}
    for one in used:
        assert one in known or any(each.startswith(f"{one}.") for each in known), one
    for one in known:
        # The image is a block of its own, whose names have nothing in front.
        name = one.removeprefix("image.") if one.startswith("image.") else one
        assert one in used or re.search(rf"[.]{name}\b", text), one


def test_unknown_values_are_refused_at_every_level() -> None:
    assert SCHEMA["additionalProperties"] is False
    for one in SCHEMA["properties"].values():
        if "properties" in one:
            assert one["additionalProperties"] is False


def test_it_audits_unless_somebody_says_otherwise() -> None:
    assert VALUES["mode"] == "audit"


def test_no_file_has_a_ca() -> None:
    for path, text in CHART.items():
        assert "caBundle" not in text, path


def test_no_marker_and_no_word_in_capitals_is_left() -> None:
    for path, text in CHART.items():
        assert not re.search(r"zq[0-9]+qz|\b735[0-9]{4}\b|@[A-Z_]+@|INDENT", text), path
        assert not re.search(r"\b(NAMESPACE|IMAGE|REPLICAS|REGISTRATION|PORT)\b(?!,)", re.sub(
            r"NAMESPACE/NAME|HOST:PORT|HOST_IP", "", text)), path  # fmt: skip


def test_the_namespace_is_the_releases() -> None:
    for path, text in TEMPLATES.items():
        assert "namespace: noderestrict" not in text, path
        assert "noderestrict/noderestrict-" not in text, path
        assert "noderestrict.noderestrict.svc" not in text, path


def test_what_a_chart_is_rendered_with_are_its_defaults(tmp_path: Path) -> None:
    flags = (
        "--image=registry.example.com:5000/n/r:v2", "--replicas=3", "--port=9443",
        "--labels=team=a", "--api-audiences=https://a", "--api-server=10.0.0.1:6443",
        "--infrastructure-accounts=kube-system/cilium", "--strict-rules=nodes/pod-cidr",
    )  # fmt: skip
    assert main(["render", str(tmp_path), *flags]) == 0
    values = yaml.safe_load((tmp_path / "chart" / "values.yaml").read_text())
    assert values["image"]["repository"] == "registry.example.com:5000/n/r"
    assert values["image"]["tag"] == "v2"
    assert (values["replicas"], values["port"], values["labels"]) == (3, 9443, {"team": "a"})
    assert values["apiAudiences"] == ["https://a"]
    assert values["apiServers"] == ["10.0.0.1:6443"]
    assert values["infrastructureAccounts"] == ["kube-system/cilium"]
    assert values["policy"]["flags"] == ["--strict-rules=nodes/pod-cidr"]
    assert "podCIDR" in json.dumps(values["policy"]["webhooks"])


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("a", ("a", "", "")),
        (f"a/b:{__version__}", ("a/b", "", "")),
        ("h:5000/b", ("h:5000/b", "", "")),
        ("h:5000/b:1@sha256:" + "a" * 64, ("h:5000/b", "1", "sha256:" + "a" * 64)),
    ],
)
def test_an_image_is_taken_apart(image: str, found: tuple[str, str, str]) -> None:
    files = all_files(Options(installation=Installation(image=image)))
    value = yaml.safe_load(files["chart/values.yaml"])["image"]
    assert (value["repository"], value["tag"], value["digest"]) == found


def test_a_chart_for_api_servers_without_match_conditions_is_not_written() -> None:
    assert not any(path.startswith("chart/") for path in all_files(Options(kubernetes_version=27)))


def test_markers_become_expressions_lines_and_numbers() -> None:
    marks = Markers()
    text = yaml.safe_dump(
        {
            "whole": marks.text(".A"),
            "part": f"x{marks.text('.B')}y",
            "number": marks.number(".C"),
            "list": ["one", marks.lines("{{- if .D }}\n- {{ .D | nindent INDENT }}\n{{- end }}")],
            "map": {marks.lines("{{- toYaml .E | nindent INDENT }}"): None},
            "braces": "{{pod}}",
        },
        sort_keys=False,
    )
    assert marks.replaced(text) == (
        "whole: {{ .A | quote }}\n"
        "part: x{{ .B }}y\n"
        "number: {{ .C }}\n"
        "list:\n- one\n"
        "{{- if .D }}\n- {{ .D | nindent 0 }}\n{{- end }}\n"
        "map:\n"
        "  {{- toYaml .E | nindent 2 }}\n"
        'braces: \'{{ "{{" }}pod{{ "}}" }}\'\n'
    )
    assert only_if(".F", "a: 1\n") == "{{- if .F }}\na: 1\n{{- end }}\n"


def test_a_namespace_that_looks_like_a_number_stays_a_text() -> None:
    for path, text in TEMPLATES.items():
        for line in text.splitlines():
            if re.search(r"namespace: *\{\{", line):
                assert "quote" in line, (path, line)


def test_values_for_a_policy_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "values"]) == 0
    value = yaml.safe_load(capsys.readouterr().out)
    assert value == {"policy": {"flags": [], "agents": {}, "webhooks": []}}
    agent = str(ROOT / "manifests" / "agents" / "kured.yaml")
    assert main(["render", "values", "--agents", agent, "--strict-rules=events/about-own"]) == 0
    value = yaml.safe_load(capsys.readouterr().out)["policy"]
    assert value["flags"] == ["--strict-rules=events/about-own"]
    assert value["agents"].keys() == {"kured.yaml"}
    names = {one["name"] for one in value["webhooks"]}
    assert "events.noderestrict.io" in names
    assert len(names) > len(yaml.safe_load(CHART["files/webhooks.yaml"])) + 1
    for webhook in value["webhooks"]:
        assert webhook.keys().isdisjoint({"clientConfig", "failurePolicy"})
