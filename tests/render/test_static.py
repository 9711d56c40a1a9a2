"""What an API server is given to load policies and a registration from files."""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.render.admission_configuration import find_admission_configuration
from noderestrict.render.client_verification import FOLDER
from noderestrict.render.kubeadm import BARE, Kubeadm
from noderestrict.render.load import parsed
from noderestrict.render.policies import policies
from noderestrict.render.protection import ADMINISTRATORS, Accounts, protection
from noderestrict.render.registration import Registration, mirror_pod_policy
from noderestrict.render.static import GATE, SUFFIX, Options, as_static, files
from noderestrict.render.written import labelled
from tests.serving.tls import authority

Object = dict[str, Any]
CA = b"-----BEGIN CERTIFICATE-----\n"
OPTIONS = Options(
    BARE, 37, mirror_pod_policy(), registration=Registration({"url": "https://h/validate"}),
    ca_bundle=CA,
)  # fmt: skip
POD_SECURITY: Object = {
    "name": "PodSecurity",
    "configuration": {"apiVersion": "pod-security.admission.config.k8s.io/v1", "defaults": {}},
}


def render(**changes: Any) -> dict[str, list[Object]]:
    rendered = files(dataclasses.replace(OPTIONS, **changes))
    return {path: parsed(text) for path, text in rendered.items()}


def kubeadm(**arguments: str) -> Kubeadm:
    given = [{"name": name.replace("_", "-"), "value": arguments[name]} for name in arguments]
    return Kubeadm({**BARE.cluster, "networking": {}, "apiServer": {"extraArgs": given}})


def flags(rendered: dict[str, list[Object]]) -> dict[str, str]:
    (cluster,) = rendered["kubeadm.yaml"]
    return {one["name"]: one["value"] for one in cluster["apiServer"]["extraArgs"]}


def admission(*plugins: Object) -> Object:
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
            "plugins": list(plugins)}  # fmt: skip


def test_every_folder_holds_what_its_plugin_loads() -> None:
    rendered = render()
    (configuration,) = rendered["files/admission.yaml"]
    folders = {
        plugin["configuration"]["staticManifestsDir"]: plugin["configuration"]["kind"]
        for plugin in configuration["plugins"]
    }
    assert folders == {
        f"{FOLDER}/webhooks": "WebhookAdmissionConfiguration",
        f"{FOLDER}/policies": "ValidatingAdmissionPolicyConfiguration",
    }
    loaded: dict[str, set[str]] = {}
    for path, objects in rendered.items():
        folder, _, _ = path.removeprefix("files/").rpartition("/")
        if folder:
            loaded.setdefault(folder, set()).update(one["kind"] for one in objects)
    assert loaded == {
        "webhooks": {"ValidatingWebhookConfiguration"},
        "policies": {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"},
    }


def test_every_name_is_one_that_files_must_give_and_every_binding_finds_its_policy() -> None:
    rendered = render()
    objects = [one for path, many in rendered.items() if path.count("/") == 2 for one in many]
    assert len(objects) == 5
    assert all(one["metadata"]["name"].endswith(SUFFIX) for one in objects)
    policies, bindings = (
        {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}
        for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    )
    assert {one["spec"]["policyName"] for one in bindings.values()} == set(policies)
    assert not any("paramKind" in one["spec"] for one in policies.values())


def test_the_registration_names_a_url_and_the_ca() -> None:
    (registration,) = render()["files/webhooks/noderestrict.yaml"]
    for webhook in registration["webhooks"]:
        client = webhook["clientConfig"]
        assert client["url"] == "https://h/validate"
        assert client["service"] is None
        assert base64.b64decode(client["caBundle"]) == CA


def test_without_a_registration_no_plugin_looks_for_one() -> None:
    rendered = render(registration=None)
    assert [one["name"] for one in rendered["files/admission.yaml"][0]["plugins"]] == [
        "ValidatingAdmissionPolicy"
    ]
    assert not any("webhooks" in path for path in rendered)


@pytest.mark.parametrize(
    ("minor", "given", "expected"),
    [
        (36, None, f"{GATE}=true"),
        (36, "A=true,B=false", f"A=true,B=false,{GATE}=true"),
        (36, f"A=true,{GATE}=true", f"A=true,{GATE}=true"),
        (37, None, None),
        (37, "A=true", "A=true"),
        (37, f"{GATE}=false,A=true", f"A=true,{GATE}=true"),
        (37, "AllBeta=false", f"AllBeta=false,{GATE}=true"),
    ],
)
def test_the_gate_is_on_and_other_gates_stay(
    minor: int, given: str | None, expected: str | None
) -> None:
    cluster = kubeadm(feature_gates=given) if given else kubeadm()
    assert flags(render(minor=minor, kubeadm=cluster)).get("feature-gates") == expected


def test_kubeadms_configuration_keeps_all_else_and_can_be_rendered_again() -> None:
    first = render(kubeadm=kubeadm(profiling="false"), minor=36)
    assert flags(first) == {
        "profiling": "false",
        "admission-control-config-file": f"{FOLDER}/admission.yaml",
        "feature-gates": f"{GATE}=true",
    }
    (cluster,) = first["kubeadm.yaml"]
    assert "networking" in cluster
    (volume,) = cluster["apiServer"]["extraVolumes"]
    assert (volume["hostPath"], volume["mountPath"]) == (FOLDER, FOLDER)
    (given,) = first["files/admission.yaml"]
    assert render(kubeadm=Kubeadm(cluster), minor=36, admission=given) == first
    assert render(kubeadm=Kubeadm(cluster), minor=36) == first


def test_what_the_api_server_has_configured_already_is_kept() -> None:
    webhooks: Object = {
        "name": "ValidatingAdmissionWebhook",
        "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": f"{FOLDER}/webhooks.kubeconfig",
        },
    }
    cluster = kubeadm(admission_control_config_file="/etc/kubernetes/admission.yaml")
    rendered = render(kubeadm=cluster, admission=admission(POD_SECURITY, webhooks))
    (configuration,) = rendered["files/admission.yaml"]
    pod_security, webhook, policy = configuration["plugins"]
    assert pod_security == POD_SECURITY
    assert webhook["configuration"] == {
        **webhooks["configuration"], "staticManifestsDir": f"{FOLDER}/webhooks",
    }  # fmt: skip
    assert policy["name"] == "ValidatingAdmissionPolicy"
    assert flags(rendered)["admission-control-config-file"] == f"{FOLDER}/admission.yaml"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minor": 35}, "Kubernetes 1.35: API servers load policies from files since 1.36"),
        (
            {"kubeadm": kubeadm(admission_control_config_file="/a.yaml")},
            "the API server has admission-control-config-file /a.yaml",
        ),
        (
            {"kubeadm": kubeadm(disable_admission_plugins="A,ValidatingAdmissionPolicy")},
            "plugins A,ValidatingAdmissionPolicy: ValidatingAdmissionPolicy loads",
        ),
        (
            {"admission": admission({"name": "ValidatingAdmissionPolicy", "path": "/p.yaml"})},
            r"plugins\[ValidatingAdmissionPolicy\].path",
        ),
        (
            {
                "admission": admission(
                    {
                        "name": "ValidatingAdmissionPolicy",
                        "configuration": {"staticManifestsDir": "/other"},
                    }
                )
            },
            "staticManifestsDir is /other, not",
        ),
        (
            {
                "admission": admission(
                    {"name": "ValidatingAdmissionPolicy", "configuration": {"kind": "Other"}}
                )
            },
            "kind is not ValidatingAdmissionPolicyConfiguration",
        ),
        ({"admission": {**admission(), "plugins": 1}}, "plugins are no list"),
        (
            {"admission": admission({"name": "ValidatingAdmissionPolicy", "configuration": "a"})},
            "configuration is no object",
        ),
    ],
)
def test_what_no_api_server_would_load_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(**changes)


def test_a_path_that_would_change_its_meaning_is_refused() -> None:
    given = admission({"name": "EventRateLimit", "path": "events.yaml"})
    with pytest.raises(ValueError, match=r"plugins\[EventRateLimit\].path events.yaml"):
        find_admission_configuration([given])
    given["plugins"][0]["path"] = "/etc/events.yaml"
    assert find_admission_configuration([None, {"kind": "Pod"}, given]) == given
    with pytest.raises(ValueError, match="there is no AdmissionConfiguration"):
        find_admission_configuration([{"kind": "AdmissionConfiguration", "apiVersion": "v1"}])


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": ("",)},
        {"users": ("a\nb",)},
        {"groups": ()},
    ],
)
def test_administrators_that_nobody_is_are_refused(changes: Any) -> None:
    with pytest.raises(ValueError, match=r"is no|without an administrator"):
        Accounts(**changes)


def test_no_name_ends_its_text_in_an_expression() -> None:
    odd = """a' || true || 'b"\\c"""
    policy, _ = protection(Accounts(users=(odd,)))
    (_, condition) = policy["spec"]["matchConditions"]
    assert json.dumps(odd) in condition["expression"]
    assert all(json.dumps(group) in condition["expression"] for group in ADMINISTRATORS)


def command(folder: Path, *flags: str) -> dict[str, list[Object]]:
    assert main(["render", "policies", str(folder / "out"), "--static", *flags]) == 0
    return {
        str(file.relative_to(folder / "out")): parsed(file.read_text())
        for file in (folder / "out").rglob("*")
        if file.is_file()
    }


def test_the_command_writes_the_rules_with_their_protection(tmp_path: Path) -> None:
    written = command(tmp_path, "--kubernetes-version", "1.36", "--deployers", "a/b")
    assert set(written) == {
        "files/admission.yaml", "files/policies/noderestrict.yaml",
        "files/policies/protection.yaml", "kubeadm.yaml",
    }  # fmt: skip
    expected = list(map(labelled, as_static(policies())))
    assert written["files/policies/noderestrict.yaml"] == json.loads(json.dumps(expected))
    assert flags(written)["feature-gates"] == f"{GATE}=true"
    assert "system:serviceaccount:a:b" in str(written["files/policies/protection.yaml"])


def test_the_command_adds_to_what_the_cluster_has(tmp_path: Path) -> None:
    cluster, given, ca = (tmp_path / name for name in ("cluster.yaml", "admission.yaml", "ca.crt"))
    has = kubeadm(admission_control_config_file="/etc/kubernetes/admission.yaml").cluster
    cluster.write_text(yaml.safe_dump({**has, "kubernetesVersion": "v1.36.4"}))
    given.write_text(yaml.safe_dump(admission(POD_SECURITY)))
    ca.write_bytes(authority().certificate)
    written = command(
        tmp_path, "--kubeadm-config", str(cluster), "--admission-config", str(given),
        "--ca-bundle", str(ca), "--api-server", "10.0.0.1:6443",
    )  # fmt: skip
    names = [one["name"] for one in written["files/admission.yaml"][0]["plugins"]]
    assert names == ["PodSecurity", "ValidatingAdmissionWebhook", "ValidatingAdmissionPolicy"]
    (registration,) = written["files/webhooks/noderestrict.yaml"]
    client = registration["webhooks"][0]["clientConfig"]
    assert client["url"] == "https://127.0.0.1:8443/validate"
    assert base64.b64decode(client["caBundle"]) == ca.read_bytes()
    assert "feature-gates" in flags({"kubeadm.yaml": written["kubeadm.yaml"][1:]})
    assert written["kubeadm.yaml"][0]["localAPIEndpoint"]["advertiseAddress"] == "10.0.0.1"


def test_the_command_writes_what_agents_are_held_by(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority().certificate)
    written = command(
        tmp_path, "--kubernetes-version", "1.36", "--ca-bundle", str(ca),
        "--agents", "examples/agents.yaml",
    )  # fmt: skip
    named = {one["metadata"]["name"]: one for one in written["files/policies/noderestrict.yaml"]}
    name = f"noderestrict-agent-net-agent{SUFFIX}"
    assert named[name]["spec"]["policyName"] == name
    (registration,) = written["files/webhooks/noderestrict.yaml"]
    webhooks = {one["name"]: one for one in registration["webhooks"]}
    client = webhooks["all.agents.noderestrict.io"]["clientConfig"]
    assert client == webhooks["pods.noderestrict.io"]["clientConfig"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--deployers", "a/b"), "--deployers needs --static"),
        (("--ca-bundle", "/none"), "--ca-bundle needs --static"),
        (("--api-server", "a:1"), "--api-server needs --static"),
        (("--static", "--kubernetes-version", "1.35"), "Kubernetes 1.35: API servers load"),
        (("--static", "--ca-bundle", "/none"), "--ca-bundle /none: No such file"),
        (("--static", "--webhook-url", "https://h/validate"), "--webhook-url: --ca-bundle"),
        (("--static", "--kubeadm-config", "/none"), "--kubeadm-config /none: No such file"),
        (("--static", "--admission-config", "/none"), "--admission-config /none: No such file"),
    ],
)
def test_bad_flags_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], message: str
) -> None:
    assert main(["render", "policies", str(tmp_path / "out"), *given]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--deployers", "--ca-writers"])
@pytest.mark.parametrize("account", ["b", "/b", "b/", "a/b/c", "a/b'] || true"])
def test_a_deployer_is_a_service_account(
    tmp_path: Path, flag: str, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["render", "policies", str(tmp_path), "--static", flag, account])
    assert f"argument {flag}: {account!r} is not NAMESPACE/NAME" in capsys.readouterr().err


def test_a_url_that_no_api_server_calls_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority().certificate)
    for url in ("http://h/validate", "h", "https://h/?a=b", "https://h/#a"):
        given = ("--static", "--ca-bundle", str(ca), "--webhook-url", url)
        assert main(["render", "policies", str(tmp_path / "out"), *given]) == 2
        assert f"--webhook-url {url}: not an HTTPS URL" in capsys.readouterr().err
