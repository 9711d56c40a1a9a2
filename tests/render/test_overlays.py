"""One overlay after another, and one version after another: nothing is in the way, or left over."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import build_parser, main
from noderestrict.render import workload
from noderestrict.render.load import parsed
from noderestrict.render.manifests import NO_CA, Options, manifests
from noderestrict.render.names import CERTIFICATE_NAMES
from tests.render.overlays import FILES, OVERLAYS, build
from tests.serving.tls import authority

Object = dict[str, Any]
Key = tuple[str, str]
SERVICE = tuple(overlay for overlay in OVERLAYS if overlay != "control-plane")
#: What an API server does not let change, by kind. A Job has its name from its template.
IMMUTABLE = {
    "Deployment": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
    "Secret": ("type", "immutable"),
    "Service": ("spec.clusterIP", "spec.ipFamilies"),
}
#: Kinds without fields that cannot change.
MUTABLE = {
    "Namespace", "ServiceAccount", "Role", "ClusterRole", "CronJob", "PodDisruptionBudget",
    "NetworkPolicy", "ValidatingWebhookConfiguration", "Certificate", "Issuer",
}  # fmt: skip


def key(value: Object) -> Key:
    return value["kind"], value["metadata"]["name"]


def installed(overlay: str, files: Any = FILES) -> dict[Key, Object]:
    return {key(one): one for one in build(overlay, files=files, parts=["install"])}


def at(value: Object, path: str) -> Any:
    for step in path.split("."):
        value = value.get(step) or {}
    return value


def test_no_immutable_field_differs_under_one_name_in_any_two_overlays() -> None:
    shared = 0
    for one, other in itertools.combinations(OVERLAYS, 2):
        before, after = installed(one), installed(other)
        for same in before.keys() & after.keys():
            kind = same[0]
            assert kind in IMMUTABLE or kind in MUTABLE, kind
            for path in IMMUTABLE.get(kind, ()):
                shared += 1
                assert at(before[same], path) == at(after[same], path), (one, other, same, path)
    assert shared > 10


def test_a_job_has_another_name_when_its_template_changes() -> None:
    names = set()
    for files in (FILES, manifests(Options(api_servers=("10.0.0.1:443",)))):
        for overlay in ("control-plane", "self-signed"):
            objects = parsed(files[f"overlays/{overlay}/new-ca.yaml"])
            (job,) = [one for one in objects if one["kind"] == "Job"]
            assert job["metadata"]["name"].startswith(f"{workload.NEW_CA}-")
            names.add(job["metadata"]["name"])
    assert len(names) == 4
    # No overlay has any.
    assert not any(kind == "Job" for overlay in OVERLAYS for kind, _ in installed(overlay))


def test_only_enforcing_registers_anything_and_it_does_nothing_else() -> None:
    for overlay in OVERLAYS:
        assert not any("webhooks" in one for one in installed(overlay).values())
        (registration,) = build(overlay, parts=["enforce"])
        policies = {one["failurePolicy"] for one in registration["webhooks"]}
        assert policies == {"Ignore" if overlay == "audit" else "Fail"}
        # After what serves it, for tools that apply both.
        assert registration["metadata"]["annotations"] == {"argocd.argoproj.io/sync-wave": "1"}


def test_what_an_overlay_leaves_of_others_is_what_leftovers_delete() -> None:
    for overlay in OVERLAYS:
        own = installed(overlay)
        others = {
            name for other in OVERLAYS for name, one in installed(other).items()
            if name not in own and not one["apiVersion"].startswith("cert-manager.io/")
        }  # fmt: skip
        left = parsed(FILES[f"overlays/{overlay}/leftovers.yaml"])
        assert {key(one) for one in left} == others
        assert others
        for one in left:
            # Enough to find it, and nothing that an apply would create.
            assert one.keys() == {"apiVersion", "kind", "metadata"}
            assert one["metadata"].get("namespace") == workload.NAMESPACE


def test_pods_of_the_daemon_set_are_none_of_the_service() -> None:
    service = installed("self-signed")
    daemon = installed("control-plane")["DaemonSet", workload.CONTROL_PLANE]
    labels = daemon["spec"]["template"]["metadata"]["labels"]
    for selector in (
        service["Service", "noderestrict"]["spec"]["selector"],
        service["Deployment", "noderestrict"]["spec"]["selector"]["matchLabels"],
        service["PodDisruptionBudget", "noderestrict"]["spec"]["selector"]["matchLabels"],
    ):
        assert not selector.items() <= labels.items()


def test_everything_has_the_label_that_says_whose_it_is() -> None:
    for overlay in OVERLAYS:
        for one in build(overlay):
            labels = one["metadata"]["labels"]
            assert labels["app.kubernetes.io/part-of"] == "noderestrict", key(one)


def test_a_certificate_has_the_same_names_in_every_overlay() -> None:
    found = set()
    for text in FILES.values():
        for value in parsed(text):
            if value.get("kind") == "Certificate":
                spec = value["spec"]
                found.add((*spec["dnsNames"], *spec["ipAddresses"]))
            for word in json.dumps(value).split('"'):
                if word.startswith("--dns-names="):
                    found.add(tuple(word.partition("=")[2].split(",")))
    assert found == {CERTIFICATE_NAMES}


def test_the_namespace_lets_in_only_what_the_overlay_needs() -> None:
    for overlay in OVERLAYS:
        objects = installed(overlay)
        labels = objects["Namespace", workload.NAMESPACE]["metadata"]["labels"]
        on_host = overlay == "control-plane"
        level = "privileged" if on_host else "restricted"
        assert labels["pod-security.kubernetes.io/enforce"] == level
        for kind, spec in pod_specs(objects):
            assert bool(spec.get("hostNetwork")) is on_host, (overlay, kind)
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def pod_specs(objects: dict[Key, Object]) -> list[tuple[str, Object]]:
    found = []
    for (kind, _), one in objects.items():
        spec = one.get("spec") or {}
        spec = spec["jobTemplate"]["spec"] if kind == "CronJob" else spec
        if "template" in spec:
            found.append((kind, spec["template"]["spec"]))
    return found


def test_every_container_says_what_it_needs() -> None:
    for path, text in FILES.items():
        for value in parsed(text):
            for _, spec in pod_specs({("Job", path): value} if "spec" in value else {}):
                for container in spec["containers"]:
                    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
                    assert container["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("overlay", SERVICE)
def test_nobody_connects_to_pods_that_serve_nothing(overlay: str) -> None:
    objects = installed(overlay)
    policies = [one["spec"] for (kind, _), one in objects.items() if kind == "NetworkPolicy"]
    everyone = [one for one in policies if one["podSelector"] == {}]
    assert everyone == [{"podSelector": {}, "policyTypes": ["Ingress"]}]
    (servers,) = [one for one in policies if one not in everyone]
    template = objects["Deployment", "noderestrict"]["spec"]["template"]
    assert servers["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def arguments(objects: dict[Key, Object]) -> list[list[str]]:
    return [one["args"] for _, spec in pod_specs(objects) for one in spec["containers"]]


def test_pods_beside_an_api_server_reach_it_without_a_service() -> None:
    for words in arguments(installed("control-plane")):
        assert "--api-server=127.0.0.1:6443,[$(HOST_IP)]:6443" in words
    for overlay in SERVICE:
        for words in arguments(installed(overlay)):
            assert not any(word.startswith("--api-server") for word in words)


def test_addresses_of_api_servers_are_for_every_pod_that_can_reach_them() -> None:
    given = ("127.0.0.1:443", "[::1]:443", "localhost:443", "10.0.0.1:6443", "[fd00::1]:6443")
    files = manifests(Options(api_servers=given))
    for words in arguments(installed("control-plane", files)):
        assert f"--api-server={','.join(given)}" in words
    for words in arguments(installed("self-signed", files)):
        assert "--api-server=10.0.0.1:6443,[fd00::1]:6443" in words
    files = manifests(Options(api_servers=("127.0.0.1:443",)))
    for words in arguments(installed("self-signed", files)):
        assert not any(word.startswith("--api-server") for word in words)


def test_no_api_server_takes_a_registration_without_a_ca(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_bytes(authority().certificate)
    assert main(["render", str(tmp_path / "m"), "--ca-bundle", str(file)]) == 0
    for overlay in OVERLAYS:
        path = f"overlays/{overlay}/enforce/registration.yaml"
        for text, known in ((FILES[path], False), ((tmp_path / "m" / path).read_text(), True)):
            for webhook in yaml.safe_load(text)["webhooks"]:
                assert (webhook["clientConfig"]["caBundle"] != NO_CA) is known


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_without_a_certificate_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_bytes(content)
    assert main(["render", str(tmp_path / "m"), "--ca-bundle", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"--ca-bundle {file}: " in error
    assert not (tmp_path / "m").exists()


def test_accounts_that_no_condition_can_hold_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["render", str(tmp_path / "m"), "--infrastructure-accounts", "kube-proxy"])
    error = capsys.readouterr().err
    assert "argument --infrastructure-accounts: 'kube-proxy' is not NAMESPACE/NAME" in error


def test_no_token_requests_are_left_out_if_none_should_be(tmp_path: Path) -> None:
    assert main(["render", str(tmp_path), "--infrastructure-accounts", ""]) == 0
    assert not any("not-infrastructure" in file.read_text() for file in tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1"])
def test_the_address_of_a_node_may_be_of_either_family(host: str) -> None:
    (words,) = [one for one in arguments(installed("control-plane")) if one[0] == "serve"]
    given = [word.replace("$(HOST_IP)", host) for word in words]
    options = build_parser("serve")[0].parse_args(given)
    assert options.api_server == (("127.0.0.1", 6443), (host, 6443))
