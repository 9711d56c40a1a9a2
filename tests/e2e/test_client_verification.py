"""A server that answers API servers alone, and API servers that show who they are, or do not."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from noderestrict.cli import main
from noderestrict.render.admission_configuration import admission_configuration
from noderestrict.render.authorizer import authorization_configuration, webhook_kubeconfig
from noderestrict.render.client_verification import client_kubeconfig
from noderestrict.render.registration import webhook_configuration
from tests.e2e.conftest import let_nodes_do_all, namespace_ready
from tests.e2e.control_plane import APIError, Client, ControlPlane, free_port
from tests.serving.tls import Server, authority, client_leaf, serving

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
SECRETS = "/api/v1/namespaces/default/secrets"


@dataclass
class Verified:
    """A cluster whose webhook and authorizer verify clients."""

    control_plane: ControlPlane
    webhook: Server
    node: Client

    def refusal(self) -> APIError:
        """Write the lease of another node, and return the refusal once the webhook is known."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "n2", "namespace": "kube-node-lease"},
        }
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                self.node.create(f"{LEASES}?dryRun=All", lease)
            except APIError as error:
                if ".noderestrict.io" in str(error):
                    return error
            time.sleep(0.1)
        raise AssertionError("the webhook is not asked")


@pytest.fixture(params=[True, False], ids=["presents", "presents nothing"])
def presents(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def verified(presents: bool, tmp_path: Path) -> Iterator[Verified]:
    # Of a CA that signs nothing else; the cluster's own signs for kubelets.
    own = authority()
    pair = client_leaf(own, "front-proxy-client")
    certificate, key, ca = (tmp_path / name for name in ("api.crt", "api.key", "clients.crt"))
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    ca.write_bytes(own.certificate)
    port = free_port()
    client = (str(certificate), str(key)) if presents else None
    (tmp_path / "authorize").write_text(
        yaml.safe_dump(
            webhook_kubeconfig(
                f"https://127.0.0.1:{port}/authorize", str(tmp_path / "ca.crt"), client
            )
        )
    )
    authorization = authorization_configuration(str(tmp_path / "authorize"))
    (tmp_path / "authorization.yaml").write_text(yaml.safe_dump(authorization))
    flags = {
        "authorization-mode": "",
        "authorization-config": str(tmp_path / "authorization.yaml"),
    }
    if presents:
        hosts = [f"127.0.0.1:{port}"]
        kubeconfig, admission = tmp_path / "webhooks.kubeconfig", tmp_path / "admission.yaml"
        kubeconfig.write_text(yaml.safe_dump(client_kubeconfig(str(certificate), str(key), hosts)))
        admission.write_text(yaml.safe_dump(admission_configuration(kubeconfig=str(kubeconfig))))
        flags["admission-control-config-file"] = str(admission)
    control_plane = ControlPlane(flags, ca_file=tmp_path / "ca.crt")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "p-uid"},
        "spec": {
            "nodeName": "n1",
            "volumes": [{"name": "s", "secret": {"secretName": "password"}}],
        },
    }
    state = tmp_path / "cluster.json"
    state.write_text(json.dumps(pod))
    try:
        admin = control_plane.admin
        namespace_ready(admin)
        with serving(
            tmp_path,
            "--state", str(state), "--authorizer",
            "--client-ca-file", str(ca), "--client-allowed-names", "front-proxy-client",
            "--port", str(port),
            ca=control_plane.ca,
            state=False,
        ) as webhook:  # fmt: skip
            admin.create(
                WEBHOOKS,
                webhook_configuration(
                    {
                        "url": f"https://127.0.0.1:{port}/validate",
                        "caBundle": base64.b64encode(control_plane.ca.certificate).decode(),
                    }
                ),
            )
            yield Verified(control_plane, webhook, control_plane.node("n1"))
    finally:
        control_plane.stop()


def test_an_api_server_is_answered_where_it_presents_its_certificate_and_refused_where_not(
    verified: Verified, presents: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = verified.control_plane.admin
    admin.create(
        SECRETS,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"}},
    )
    # The authorizer: the node's pod mounts the Secret.
    if presents:
        assert verified.node.get(f"{SECRETS}/password")["metadata"]["name"] == "password"
    else:
        with pytest.raises(APIError) as raised:
            verified.node.get(f"{SECRETS}/password")
        assert raised.value.code in (403, 500)

    # Admission: refused by the rules, or because nobody could be asked.
    let_nodes_do_all(admin)
    refused = verified.refusal()
    assert refused.code == (403 if presents else 500), refused
    assert ("denied the request" in str(refused)) == presents

    kubeconfig = tmp_path / "doctor"
    kubeconfig.write_text(json.dumps(admin.kubeconfig()))
    capsys.readouterr()
    main(["doctor", "--kubeconfig", str(kubeconfig), "--output", "json"])
    findings = json.loads(capsys.readouterr().out)
    (found,) = (one for one in findings if one["check"] == "client verification")
    assert found["status"] == ("pass" if presents else "fail"), found


def test_a_caller_without_a_certificate_gets_no_answer(verified: Verified) -> None:
    with pytest.raises(OSError):  # noqa: PT011 (which one depends on timing)
        verified.webhook.request("/livez")
