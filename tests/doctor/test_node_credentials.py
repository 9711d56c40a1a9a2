"""A kubelet's credential, of whatever kind, and whatever the file holds."""

import base64
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from noderestrict.doctor.checks import node_credentials
from noderestrict.doctor.cluster import Cluster, Options
from noderestrict.doctor.findings import Finding
from tests.cli.store import Store, kubeconfig, stored
from tests.serving.tls import authority, client_leaf, odd_certificates

Object = dict[str, Any]
NODE = client_leaf(authority(), "system:node:n1", "system:nodes")


async def judged(file: Path) -> Finding:
    cluster = Cluster(None, Options(node_kubeconfigs=(file,)))  # type: ignore[arg-type]
    (finding,) = [one async for one in node_credentials.CHECK.check(cluster)]
    assert "\n" not in finding.message
    assert str(file) in finding.message
    assert bool(finding.command) == bool(finding.remedy) == (finding.status != "pass")
    return finding


async def finding(folder: Path, user: Object, **others: Any) -> Finding:
    file = folder / "kubelet.conf"
    value = kubeconfig("https://127.0.0.1:1")
    value["users"] = [{"name": "u", "user": user}]
    file.write_text(yaml.safe_dump(value | others))
    return await judged(file)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def certificate(data: bytes) -> Object:
    return {"client-certificate-data": encoded(data), "client-key-data": encoded(NODE.key)}


async def test_a_nodes_certificate_is_a_nodes(tmp_path: Path) -> None:
    found = await finding(tmp_path, certificate(NODE.certificate))
    assert found.message.endswith("system:node:n1 in system:nodes")
    assert found.status == "pass"


async def test_a_kubelets_own_file_holds_certificate_and_key(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "current.pem").write_bytes(NODE.certificate + NODE.key)
    names = dict.fromkeys(("client-certificate", "client-key"), "pki/current.pem")
    assert (await finding(tmp_path, names)).status == "pass"


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("system:node:n1", ()), ("n1", ("system:nodes",)), ("system:node:", ("system:nodes",)),
        ("system:node:n1", ("system:node",)), ("System:node:n1", ("system:nodes",)),
    ],
)  # fmt: skip
async def test_another_user_is_none(tmp_path: Path, name: str, groups: tuple[str, ...]) -> None:
    pair = client_leaf(authority(), name, groups[0] if groups else "")
    found = await finding(tmp_path, certificate(pair.certificate))
    assert (found.status, "is not a node" in found.message) == ("fail", True)


@pytest.mark.parametrize("odd", list(odd_certificates()), ids=lambda odd: str(odd[0]))
async def test_an_odd_certificate_is_a_finding(
    tmp_path: Path, odd: tuple[str, bytes, bytes]
) -> None:
    assert (await finding(tmp_path, certificate(odd[1]))).status == "fail"


async def test_the_current_context_says_which_user_is_meant(tmp_path: Path) -> None:
    other = client_leaf(authority(), "admin", "system:masters")
    users = [
        {"name": "first", "user": certificate(other.certificate)},
        {"name": "u", "user": certificate(NODE.certificate)},
    ]
    assert (await finding(tmp_path, {}, users=users)).status == "pass"
    users[0]["name"], users[1]["name"] = "u", "first"
    assert "CN=admin," in (await finding(tmp_path, {}, users=users)).message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"current-context": ""}, "current-context: missing"),
        ({"contexts": [{"name": "c", "context": {"cluster": "c"}}]}, "context.user: missing"),
        ({"users": "u"}, "users: 'u': Expected"),
        ({"kind": "Pod"}, "kind: 'Pod' is not that of a kubeconfig"),
    ],
)
async def test_a_file_that_no_client_takes_is_told_as_every_command_tells_it(
    tmp_path: Path, change: Object, says: str
) -> None:
    found = await finding(tmp_path, certificate(NODE.certificate), **change)
    assert found.status == "fail"
    assert says in found.message


@pytest.mark.parametrize("text", ["", "\t", "nothing", "users: [", "[]", '"a"'])
async def test_what_is_no_kubeconfig_is_a_finding(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubelet.conf"
    file.write_text(text)
    assert (await judged(file)).status == "fail"
    file.unlink()
    assert "No such file" in (await judged(file)).message


class Identifying(Store):
    """An API server that says who its callers are."""

    def __init__(self, user: str | None, *groups: str) -> None:
        super().__init__()
        self.info = {"username": user, "groups": [*groups]}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Object]:
        if self.info["username"] is None:
            return 404, {"message": "not found"}
        assert (method, body["kind"]) == ("POST", "SelfSubjectReview")
        return 201, {"status": {"userInfo": self.info}}


@pytest.mark.parametrize(
    ("server", "status", "says"),
    [
        (Identifying("system:node:n1", "system:nodes"), "pass", "system:node:n1 in system:nodes"),
        (Identifying("system:node:n1"), "fail", "system:node:n1 is not a node"),
        (Identifying("bootstrap", "system:bootstrappers"), "fail", "bootstrap is not a node"),
        (Identifying(None), "unknown", "does not say who it is"),
    ],
)
@pytest.mark.parametrize("kind", ["token", "tokenFile", "exec"])
async def test_a_credential_without_a_certificate_is_judged_by_the_api_server(
    tmp_path: Path, server: Identifying, status: str, says: str, kind: str
) -> None:
    (tmp_path / "token").write_text("of-a-node\n")
    answer = {"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
              "status": {"token": "of-a-node"}}  # fmt: skip
    plugin = {"apiVersion": answer["apiVersion"], "interactiveMode": "Never", "command": "sh",
              "args": ["-c", f"echo {shlex.quote(json.dumps(answer))}"]}  # fmt: skip
    user = {
        "token": {"token": "of-a-node"}, "tokenFile": {"tokenFile": "token"},
        "exec": {"exec": plugin},
    }[kind]  # fmt: skip
    with stored(server, tmp_path) as file:
        value = json.loads(file.read_text())
        value["users"] = [{"name": "u", "user": user}]
        file.write_text(json.dumps(value))
        found = await judged(file)
        sent = {head["Authorization"] for _, _, head in server.heads}
    assert (found.status, says in found.message) == (status, True), found
    assert sent == {"Bearer of-a-node"}
    server.heads.clear()


async def test_an_api_server_that_is_away_leaves_it_unknown(tmp_path: Path) -> None:
    found = await finding(tmp_path, {"token": "t"})
    assert found.status == "unknown"
    assert found.command.endswith(f"--kubeconfig={tmp_path}/kubelet.conf auth whoami")
