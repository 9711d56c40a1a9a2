"""A kubelet's client certificate, whatever the file holds."""

import base64
import json
from pathlib import Path

import pytest

from noderestrict.doctor.checks.node_credentials import check_node_kubeconfig
from tests.serving.tls import authority, client_leaf, odd_certificates


def finding(tmp_path: Path, certificate: bytes) -> str:
    data = base64.b64encode(certificate).decode()
    file = tmp_path / "kubeconfig"
    file.write_text(
        json.dumps({"users": [{"name": "u", "user": {"client-certificate-data": data}}]})
    )
    return check_node_kubeconfig(file).status


def test_a_nodes_certificate_is_a_nodes(tmp_path: Path) -> None:
    pair = client_leaf(authority(), "system:node:n1", "system:nodes")
    assert finding(tmp_path, pair.certificate) == "pass"


@pytest.mark.parametrize("odd", list(odd_certificates()), ids=lambda odd: str(odd[0]))
def test_an_odd_certificate_is_a_finding(tmp_path: Path, odd: tuple[str, bytes, bytes]) -> None:
    assert finding(tmp_path, odd[1]) == "fail"
