"""What Helm renders from the chart is what the overlays and components have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.render.manifests import Options, manifests
from noderestrict.render.names import Installation
from noderestrict.render.registration import parse_registration
from tests.e2e.helm import CHART, Helm
from tests.render.overlays import FILES, build

Object = dict[str, Any]
Key = tuple[str, str]
#: Set by Helm's convention, in addition to ours.
LABELS = {"app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"}
#: Shows whether API servers get answers; overlays register it for a moment only.
SERVED = ("ValidatingWebhookConfiguration", "noderestrict-served")
NAMESPACE = "isolation"
INSTALLATION = Installation(
    NAMESPACE, "registry.example.com/n:v9", 3, port=9443, labels={"team": "a"}
)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


def rendered(helm: Helm, *sets: str, namespace: str = "noderestrict") -> dict[Key, Object]:
    """Return what Helm renders and tracks, by kind and name: hooks are left out."""
    values = [word for one in sets for word in ("--set", one)]
    text = helm("template", "noderestrict", str(CHART), "--namespace", namespace, *values)
    return tracked(text)


def tracked(text: str) -> dict[Key, Object]:
    found = {}
    for one in yaml.safe_load_all(text):
        if "helm.sh/hook" not in one["metadata"].get("annotations", {}):
            found[one["kind"], one["metadata"]["name"]] = one
    return found


def plain(value: Any) -> Any:
    """Return a value without what is empty and without the order of a container's flags."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "args" in value:
        value = {**value, "args": flags(value["args"])}
    found = {key: plain(one) for key, one in value.items()}
    return {key: one for key, one in found.items() if one not in (None, [], {}, "")}


def flags(arguments: list[str]) -> Object:
    """Return flags by name; the last one of a name counts."""
    found: Object = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        # Each names another file.
        key = argument if name == "--agents" else name
        is_json = name == "--expected-registration"
        found[key] = json.loads(value) if is_json else value
    return found


def comparable(value: Object) -> Any:
    value = json.loads(json.dumps(value))
    labels = value["metadata"]["labels"]
    value["metadata"]["labels"] = {one: labels[one] for one in labels if one not in LABELS}
    for webhook in value.get("webhooks", ()):
        webhook["clientConfig"].pop("caBundle", None)
    return plain(value)


def of_overlay(name: str, *components: str, files: Any = FILES) -> dict[Key, Object]:
    """Return the objects of an overlay, by kind and name, without the namespace."""
    objects = build(name, components, files)
    return {
        (one["kind"], one["metadata"]["name"]): one for one in objects if one["kind"] != "Namespace"
    }


CASES: dict[str, tuple[list[str], str, tuple[str, ...]]] = {
    "audit": ([], "audit", ()),
    "self-signed": (["mode=enforce"], "self-signed", ()),
    "cert-manager": (["mode=enforce", "certificates=cert-manager"], "cert-manager", ()),
    "control-plane": (["mode=enforce", "placement=control-plane"], "control-plane", ()),
    "components": (
        ["mode=enforce", "clientVerification=true", "dedicatedNodes=true", "policies=deny",
         "mirrorPods=true", "events=true"],
        "self-signed",
        ("client-verification", "dedicated-nodes", "policies", "mirror-pods", "events"),
    ),
    "components beside API servers": (
        ["mode=enforce", "placement=control-plane", "clientVerification=true", "events=true"],
        "control-plane", ("client-verification", "events"),
    ),
    "audit on dedicated nodes": (["dedicatedNodes=true"], "audit", ("dedicated-nodes",)),
}  # fmt: skip


@pytest.mark.parametrize(("values", "overlay", "components"), CASES.values(), ids=CASES)
def test_the_chart_has_the_objects_of_an_overlay(
    helm: Helm, values: list[str], overlay: str, components: tuple[str, ...]
) -> None:
    chart, wanted = rendered(helm, *values), of_overlay(overlay, *components)
    assert chart.pop(SERVED)["webhooks"]
    assert chart.keys() == wanted.keys()
    for key, value in wanted.items():
        assert comparable(chart[key]) == comparable(value), key


@pytest.mark.parametrize("placement", ["service", "control-plane"])
def test_the_chart_monitors_what_runs(helm: Helm, placement: str) -> None:
    chart = rendered(helm, "mode=enforce", "monitoring=true", f"placement={placement}")
    on_host = placement == "control-plane"
    wanted = of_overlay("control-plane" if on_host else "self-signed", "monitoring")
    # Without what it monitors, either of them is of no use.
    del wanted["ServiceMonitor" if on_host else "PodMonitor",
               "noderestrict" if on_host else "noderestrict-control-plane"]  # fmt: skip
    chart.pop(SERVED)
    assert chart.keys() == wanted.keys()
    for key, value in wanted.items():
        assert comparable(chart[key]) == comparable(value), key


@pytest.mark.parametrize(("values", "overlay", "components"), CASES.values(), ids=CASES)
def test_names_image_and_labels_are_values_as_they_are_flags(
    helm: Helm, values: list[str], overlay: str, components: tuple[str, ...]
) -> None:
    files = manifests(Options(installation=INSTALLATION))
    chart = rendered(
        helm, *values, "image.repository=registry.example.com/n", "image.tag=v9", "replicas=3",
        "port=9443", "labels.team=a", namespace=NAMESPACE,
    )  # fmt: skip
    chart.pop(SERVED)
    wanted = of_overlay(overlay, *components, files=files)
    assert chart.keys() == wanted.keys()
    for key, value in wanted.items():
        assert comparable(chart[key]) == comparable(value), key


def test_accounts_audiences_and_api_servers_are_values_as_they_are_flags(helm: Helm) -> None:
    given = Options(
        api_audiences=("https://a", "b"), api_servers=("127.0.0.1:443", "10.0.0.1:6443"),
        infrastructure=("kube-system/cilium", "kube-system/kube-proxy"),
    )  # fmt: skip
    values = [
        "mode=enforce", "apiAudiences={https://a,b}", "apiServers={127.0.0.1:443,10.0.0.1:6443}",
        "infrastructureAccounts={kube-system/cilium,kube-system/kube-proxy}",
    ]  # fmt: skip
    for placement, overlay in (("service", "self-signed"), ("control-plane", "control-plane")):
        chart = rendered(helm, *values, f"placement={placement}")
        chart.pop(SERVED)
        for key, value in of_overlay(overlay, files=manifests(given)).items():
            assert comparable(chart[key]) == comparable(value), key


def test_a_policy_is_a_value_or_rendered_into_the_chart(helm: Helm, tmp_path: Path) -> None:
    flags_given = (
        "--strict-rules=all", "--forbid-node-labels=*=example.com/*", "--agents",
        str(CHART.parent / "agents" / "calico.yaml"), str(CHART.parent / "agents" / "kured.yaml"),
    )  # fmt: skip
    assert main(["render", str(tmp_path / "m"), *flags_given]) == 0
    files = {
        str(file.relative_to(tmp_path / "m")): file.read_text()
        for file in (tmp_path / "m").rglob("*")
        if file.is_file()
    }
    values = tmp_path / "values.yaml"
    values.write_text(printed(["render", "values", *flags_given]))
    enforced = ("--set", "mode=enforce", "--namespace", "noderestrict")
    by_value = helm("template", "noderestrict", str(CHART), "--values", str(values), *enforced)
    rendered_in = helm("template", "noderestrict", str(tmp_path / "m" / "chart"), *enforced)
    wanted = of_overlay("self-signed", files=files)
    assert len(wanted["ValidatingWebhookConfiguration", "noderestrict"]["webhooks"]) > 9
    for text in (by_value, rendered_in):
        chart = tracked(text)
        chart.pop(SERVED)
        assert chart.keys() == wanted.keys()
        for key, value in wanted.items():
            assert comparable(chart[key]) == comparable(value), key


def printed(words: list[str]) -> str:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(words) == 0
    return out.getvalue()


@pytest.mark.parametrize("mode", ["audit", "warn", "enforce"])
@pytest.mark.parametrize("placement", ["service", "control-plane"])
def test_the_server_expects_what_is_registered(helm: Helm, mode: str, placement: str) -> None:
    chart = rendered(helm, f"mode={mode}", f"placement={placement}", "ruleModes.nodes/labels=off")
    (server,) = (one for (kind, _), one in chart.items() if kind in ("Deployment", "DaemonSet"))
    (container,) = server["spec"]["template"]["spec"]["containers"]
    given = flags(container["args"])
    assert given.get("--mode", "enforce") == mode
    assert given["--rule-modes"] == "nodes/labels=off"
    expected = parse_registration(json.dumps(given["--expected-registration"]))
    registered = chart["ValidatingWebhookConfiguration", "noderestrict"]
    from noderestrict.policy.extra import Extra

    assert comparable({**registered, "metadata": {"labels": {}}}) == comparable(
        {**expected.value(Extra()), "metadata": {"labels": {}}}
    )


def test_no_value_renders_a_ca(helm: Helm) -> None:
    for values, _, _ in CASES.values():
        sets = [word for one in values for word in ("--set", one)]
        assert "caBundle" not in helm("template", "noderestrict", str(CHART), *sets)


def test_helm_finds_nothing_to_complain_of(helm: Helm) -> None:
    for values, _, _ in CASES.values():
        sets = [word for one in values for word in ("--set", one)]
        assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *sets)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("replicas=0", "replicas"),
        ("mode=off", "mode"),
        ("image.tag=2", "image tag"),
        ("image.digest=sha256:0", "image digest"),
        ("replica=3", "replica"),
        ("ruleModes.nodes/lable=enforce", "request/object"),
        ("ruleModes.nodes/labels=on", "ruleModes nodes labels"),
        ("infrastructureAccounts={kube-proxy}", "infrastructureAccounts"),
        ("apiAudiences={it's}", "apiAudiences"),
        ("extraArgs={--mode=off}", "--mode=off would contradict a value of the chart"),
        ("dedicatedNodes=true,placement=control-plane", "dedicatedNodes is for clusters without"),
    ],
)
def test_a_bad_value_is_told_by_its_name(helm: Helm, value: str, told: str) -> None:
    output = helm("template", "noderestrict", str(CHART), "--set", value, code=1)
    # Each version has a format of its own.
    for word in told.split():
        assert word in output


def test_accounts_of_hooks_exist_with_the_hooks_alone(helm: Helm) -> None:
    text = helm("template", "noderestrict", str(CHART), "--set", "mode=enforce")
    hooks = [
        one for one in yaml.safe_load_all(text)
        if "helm.sh/hook" in one["metadata"].get("annotations", {})
    ]  # fmt: skip
    assert {one["kind"] for one in hooks} >= {"ServiceAccount", "ClusterRole", "Role", "Job", "Pod"}
    for one in hooks:
        policy = one["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded,hook-failed"
        for rule in one.get("rules", ()):
            # Nobody but Helm creates a registration, or reads another Secret.
            if rule["resources"] == ["validatingwebhookconfigurations"]:
                assert set(rule["verbs"]) <= {"get", "patch"}
                assert rule["resourceNames"]
            elif set(rule["verbs"]) & {"get", "list", "watch", "update", "patch"}:
                assert rule["resourceNames"] == ["noderestrict-tls", "noderestrict-ca"]
            assert not re.search("impersonate|escalate|bind", " ".join(rule["verbs"]))
    without = helm("template", "noderestrict", str(CHART), "--set", "hooks=false")
    assert "helm.sh/hook" not in without
