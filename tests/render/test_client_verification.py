"""The component that makes the server answer API servers alone."""

import copy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from noderestrict.cli import build_parser
from noderestrict.render.authorizer import webhook_kubeconfig
from noderestrict.render.client_verification import FOLDER
from noderestrict.render.manifests import manifests
from noderestrict.render.workload import daemon_set, deployment

FILES = manifests()
COMPONENT = "components/client-verification"


def load(name: str) -> Any:
    return yaml.safe_load(FILES[f"{COMPONENT}/api-server/{name}"])


def server_patches() -> list[Any]:
    """Return the JSON patches of whatever runs the server."""
    patches = yaml.safe_load(FILES[f"{COMPONENT}/kustomization.yaml"])["patches"]
    assert [patch["target"]["kind"] for patch in patches] == ["Deployment", "DaemonSet"]
    return [yaml.safe_load(patch["patch"]) for patch in patches]


def patched(value: dict[str, Any]) -> dict[str, Any]:
    """Apply a JSON patch that only adds to lists."""
    value = copy.deepcopy(value)
    for operation in server_patches()[0]:
        assert operation["op"] == "add"
        *steps, last = operation["path"].strip("/").split("/")
        assert last == "-"
        holder: Any = value
        for step in steps:
            holder = holder[int(step) if isinstance(holder, list) else step]
        holder.append(operation["value"])
    return value


@pytest.mark.parametrize("workload", [deployment(), daemon_set()], ids=["Deployment", "DaemonSet"])
def test_the_server_reads_the_ca_that_is_mounted(workload: dict[str, Any]) -> None:
    spec = patched(workload)["spec"]["template"]["spec"]
    container = spec["containers"][0]
    options = build_parser()[1]["serve"].parse_args(container["args"][1:])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert options.client_ca_file == Path(mounts["client-ca"]) / "ca.crt"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["client-ca"]["configMap"]["name"] == "noderestrict-client-ca"


def test_the_component_changes_whatever_runs_the_server() -> None:
    deployment_patch, daemon_set_patch = server_patches()
    assert deployment_patch == daemon_set_patch


def test_the_api_server_shows_who_it_is_to_every_host_that_is_registered() -> None:
    (plugin,) = load("admission.yaml")["plugins"]
    assert plugin["name"] == "ValidatingAdmissionWebhook"
    assert plugin["configuration"]["kubeConfigFile"] == f"{FOLDER}/webhooks.kubeconfig"
    users = {user["name"]: user["user"] for user in load("webhooks.kubeconfig")["users"]}
    hosts = set()
    for overlay in ("self-signed", "cert-manager", "control-plane"):
        registration = yaml.safe_load(FILES[f"overlays/{overlay}/enforce/registration.yaml"])
        for webhook in registration["webhooks"]:
            client = webhook["clientConfig"]
            if client.get("url"):
                hosts.add(urlsplit(client["url"]).netloc)
            else:
                # The API server adds :443, and looks without it, too.
                service = client["service"]
                assert service.get("port", 443) == 443
                hosts.add(f"{service['name']}.{service['namespace']}.svc")
    assert hosts == set(users)
    assert all(set(user) == {"client-certificate", "client-key"} for user in users.values())
    arguments = load("kubeadm.yaml")["apiServer"]["extraArgs"]
    assert arguments == [
        {"name": "admission-control-config-file", "value": f"{FOLDER}/admission.yaml"}
    ]


def test_the_authorizer_is_shown_a_certificate_where_one_is_given() -> None:
    plain = webhook_kubeconfig("https://127.0.0.1:8443/authorize", "/ca.crt")
    assert plain["users"][0]["user"] == {}
    shown = webhook_kubeconfig("https://127.0.0.1:8443/authorize", "/ca.crt", ("/c.crt", "/c.key"))
    assert shown["users"][0]["user"] == {
        "client-certificate": "/c.crt", "client-key": "/c.key",
    }  # fmt: skip
