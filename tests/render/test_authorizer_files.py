"""What ``noderestrict render authorizer`` writes, and what it does with kubeadm's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.render.client_verification import FOLDER
from noderestrict.render.registration import cluster_role

Object = dict[str, Any]
V1BETA4: Object = {
    "apiVersion": "kubeadm.k8s.io/v1beta4",
    "kind": "ClusterConfiguration",
    "kubernetesVersion": "v1.36.2",
    "clusterName": "lab",
    "controlPlaneEndpoint": "balancer:6443",
    "apiServer": {
        "extraArgs": [
            {"name": "profiling", "value": "false"},
            {"name": "authorization-mode", "value": "Node,RBAC"},
            {"name": "service-account-issuer", "value": "https://new"},
            {"name": "service-account-issuer", "value": "https://old"},
        ],
        "extraVolumes": [{"name": "audit", "hostPath": "/a", "mountPath": "/a"}],
        "certSANs": ["example.com"],
    },
    "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
}


def render(folder: Path, *flags: str, config: Any = None) -> dict[str, list[Object]]:
    if config is not None:
        file = folder / "cluster.yaml"
        file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        flags = (*flags, "--kubeadm-config", str(file))
    assert main(["render", "authorizer", str(folder / "out"), *flags]) == 0
    return {
        str(file.relative_to(folder / "out")): list(yaml.safe_load_all(file.read_text()))
        for file in (folder / "out").rglob("*")
        if file.is_file()
    }


def by_kind(objects: list[Object], kind: str) -> Object:
    (found,) = (one for one in objects if one["kind"] == kind)
    return found


def arguments(objects: list[Object]) -> list[tuple[str, str]]:
    given = by_kind(objects, "ClusterConfiguration")["apiServer"]["extraArgs"]
    return [(one["name"], one["value"]) for one in given]


def test_kubeadms_configuration_keeps_all_but_the_authorizers(tmp_path: Path) -> None:
    objects = render(tmp_path, "--api-server", "10.0.0.1:6443", config=V1BETA4)["kubeadm.yaml"]
    cluster = by_kind(objects, "ClusterConfiguration")
    assert sorted(arguments(objects)) == [
        ("authorization-config", f"{FOLDER}/authorization.yaml"),
        ("profiling", "false"),
        ("service-account-issuer", "https://new"),
        ("service-account-issuer", "https://old"),
    ]
    assert [one["name"] for one in cluster["apiServer"]["extraVolumes"]] == [
        "audit", "noderestrict",
    ]  # fmt: skip
    kept = {"apiServer": None}
    assert {**cluster, **kept} == {**V1BETA4, **kept}
    assert cluster["apiServer"]["certSANs"] == ["example.com"]
    endpoint = by_kind(objects, "InitConfiguration")["localAPIEndpoint"]
    assert endpoint == {"advertiseAddress": "10.0.0.1", "bindPort": 6443}


def test_what_was_rendered_can_be_rendered_again(tmp_path: Path) -> None:
    first = render(tmp_path, config=V1BETA4)
    again = render(tmp_path, config=by_kind(first["kubeadm.yaml"], "ClusterConfiguration"))
    assert again == first


def test_the_credential_is_for_the_api_server_of_this_machine(tmp_path: Path) -> None:
    objects = render(tmp_path, "--api-server", "[fd00::1]:6443", config=V1BETA4)["credential.yaml"]
    assert "controlPlaneEndpoint" not in by_kind(objects, "ClusterConfiguration")
    assert by_kind(objects, "ClusterConfiguration")["clusterName"] == "lab"
    address = by_kind(objects, "InitConfiguration")["localAPIEndpoint"]["advertiseAddress"]
    assert address == "fd00::1"


@pytest.mark.parametrize(
    ("version", "file", "flag"),
    [
        ("v1.36.2", "apiserver.config.k8s.io/v1", "authorization-config"),
        ("v1.32.0", "apiserver.config.k8s.io/v1", "authorization-config"),
        ("v1.31.4", "apiserver.config.k8s.io/v1beta1", "authorization-config"),
        ("v1.30.0", "apiserver.config.k8s.io/v1beta1", "authorization-config"),
        ("v1.29.9", None, "authorization-webhook-config-file"),
    ],
)
def test_each_version_gets_what_it_reads(
    tmp_path: Path, version: str, file: str | None, flag: str
) -> None:
    files = render(tmp_path, config={**V1BETA4, "kubernetesVersion": version})
    names = [name for name, _ in arguments(files["kubeadm.yaml"])]
    assert flag in names
    assert ("authorization-mode" in names) == (file is None)
    (found,) = files.get("files/authorization.yaml", [{"apiVersion": None}])
    assert found["apiVersion"] == file


def test_arguments_were_a_mapping_before_v1beta4(tmp_path: Path) -> None:
    old = {
        "apiVersion": "kubeadm.k8s.io/v1beta3", "kind": "ClusterConfiguration",
        "kubernetesVersion": "v1.30.1", "apiServer": {"extraArgs": {"profiling": "false"}},
    }  # fmt: skip
    objects = render(tmp_path, config=old)["kubeadm.yaml"]
    given = by_kind(objects, "ClusterConfiguration")["apiServer"]["extraArgs"]
    assert given == {
        "profiling": "false", "authorization-config": f"{FOLDER}/authorization.yaml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "audiences"),
    [
        ({}, "https://kubernetes.default.svc.cluster.local"),
        (
            {"networking": {"dnsDomain": "example.org"}},
            "https://kubernetes.default.svc.example.org",
        ),
        (V1BETA4, "https://new,https://old"),
        ({"apiServer": {"extraArgs": [{"name": "api-audiences", "value": "a,b"}]}}, "a,b"),
    ],
)
def test_the_server_has_the_audiences_of_the_api_server(
    tmp_path: Path, given: Object, audiences: str
) -> None:
    bare = {name: V1BETA4[name] for name in ("apiVersion", "kind", "kubernetesVersion")}
    (pod,) = render(tmp_path, config={**bare, **given})["static-pod.yaml"]
    (container,) = pod["spec"]["containers"]
    assert f"--api-audiences={audiences}" in container["args"]


def test_the_static_pod_needs_nothing_of_the_cluster_and_writes_nothing(tmp_path: Path) -> None:
    files = render(tmp_path, "--image", "registry/noderestrict:1")
    (pod,) = files["static-pod.yaml"]
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert container["image"] == "registry/noderestrict:1"
    assert spec["hostNetwork"]
    assert not {"serviceAccountName", "nodeSelector"} & spec.keys()
    assert [list(one) for one in spec["volumes"]] == [["name", "hostPath"]]
    assert all(one["readOnly"] for one in container["volumeMounts"])
    assert container["securityContext"]["readOnlyRootFilesystem"]
    (webhook,) = files["files/webhook.kubeconfig"]
    server = webhook["clusters"][0]["cluster"]["server"]
    flags = dict(one.partition("=")[::2] for one in container["args"])
    assert server == f"https://127.0.0.1:{flags['--port']}/authorize"


def test_leases_are_opened_only_if_asked_for_and_no_further(tmp_path: Path) -> None:
    assert "node-leases.yaml" not in render(tmp_path)
    role, binding = render(tmp_path, "--node-leases")["node-leases.yaml"]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "kube-node-lease"
    assert role["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"]}
    ]
    assert [one["name"] for one in binding["subjects"]] == ["system:nodes"]


def test_the_servers_user_has_the_rights_of_a_server(tmp_path: Path) -> None:
    role, binding = render(tmp_path)["rbac.yaml"]
    assert role["rules"] == cluster_role()["rules"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"] == "noderestrict-authorizer"
    assert binding["subjects"][0]["name"] == "noderestrict-authorizer"


BARE = {name: V1BETA4[name] for name in ("apiVersion", "kind")}


def with_argument(name: str, value: str) -> Object:
    return {**BARE, "apiServer": {"extraArgs": [{"name": name, "value": value}]}}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("a: [", "line 1: "),
        ("", "there is no ClusterConfiguration"),
        ("- 1", "there is no ClusterConfiguration"),
        (json.dumps({"kind": "ClusterConfiguration"}), "there is no ClusterConfiguration"),
        ({**BARE, "kubernetesVersion": "latest"}, "'latest' is not a version"),
        ({**BARE, "apiServer": {"extraArgs": [1]}}, "extraArgs are no arguments"),
        ({**BARE, "apiServer": {"extraArgs": "x"}}, "extraArgs are no arguments"),
        ({**BARE, "apiServer": 5}, "apiServer is no object"),
        ({**BARE, "networking": [1]}, "networking is no object"),
        ({**BARE, "apiServer": {"extraVolumes": [1]}}, "extraVolumes are no volumes"),
        (with_argument("authorization-config", "/mine.yaml"), "authorization-config /mine.yaml"),
        (with_argument("authorization-mode", "Node,RBAC,ABAC"), "authorization-mode ABAC"),
    ],
)
def test_what_cannot_be_added_to_is_named_in_one_line(
    tmp_path: Path, config: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    out = tmp_path / "out"
    assert main(["render", "authorizer", str(out), "--kubeadm-config", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"noderestrict render: --kubeadm-config {file}: ")
    assert says in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_directory_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["render", "authorizer"]) == 0
    assert (tmp_path / "authorizer" / "static-pod.yaml").exists()
