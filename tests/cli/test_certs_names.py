"""The names of a certificate come from whoever calls it, and from the certificate before it."""

import base64
from pathlib import Path

import pytest
import yaml

from noderestrict.pki.bundle import certificates
from noderestrict.pki.check import trusted
from noderestrict.pki.pem import Block, certificate_blocks
from noderestrict.render.registration import webhook_configuration
from tests.cli.test_certs_kept import (
    CA,
    HOOKS,
    NAMES,
    REGISTRATION,
    SECRETS,
    SERVICE,
    TLS,
    Cluster,
    api_servers_notice_at_once,
    bootstrapped,
    cluster,
)

__all__ = ["api_servers_notice_at_once", "cluster"]


def names(cluster: Cluster) -> tuple[str, ...]:
    return trusted(cluster.store.data("noderestrict-tls")["tls.crt"])[0].names


def register(cluster: Cluster, client: dict[str, object]) -> None:
    cluster.store.put(REGISTRATION, webhook_configuration(client))


def elsewhere(namespace: str = "elsewhere") -> dict[str, object]:
    return {"service": {"name": "hook", "namespace": namespace, "path": "/validate"}}


def test_those_of_the_registration_are_given(cluster: Cluster) -> None:
    register(cluster, {"url": "https://10.0.0.1:8443/validate"})
    bootstrapped(cluster)
    assert names(cluster) == ("10.0.0.1",)
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")


def test_those_of_a_service_are_given_with_the_cluster_domain(cluster: Cluster) -> None:
    register(cluster, elsewhere())
    bootstrapped(cluster)
    assert names(cluster) == ("hook.elsewhere.svc", "hook.elsewhere.svc.cluster.local")


def test_those_of_a_file_with_the_registration_are_given(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text(yaml.safe_dump(webhook_configuration(elsewhere("there"))))
    flags = (*TLS, *CA, "--unserved", "--registration", str(file))
    assert cluster.certs("bootstrap", *flags)[0] == 0
    assert names(cluster) == ("hook.there.svc", "hook.there.svc.cluster.local")


def test_without_anything_else_they_are_those_of_the_rendered_service(cluster: Cluster) -> None:
    assert cluster.certs("bootstrap", *TLS, *CA)[0] == 0
    assert names(cluster) == NAMES


def test_those_on_the_command_line_are_the_only_ones(cluster: Cluster) -> None:
    bootstrapped(cluster, "--dns-names", "a.example,10.0.0.1")
    assert names(cluster) == ("a.example", "10.0.0.1")
    code, output = cluster.certs("check", *TLS, *CA, *HOOKS)
    assert code == 1
    assert "does not cover noderestrict.noderestrict.svc" in output


def test_a_renewed_certificate_has_the_names_of_its_predecessor(cluster: Cluster) -> None:
    bootstrapped(cluster, "--dns-names", "a.example,::1")
    assert cluster.certs("renew", *TLS, *CA, "--force")[0] == 0
    assert names(cluster) == ("a.example", "::1")


def test_a_certificate_that_lacks_a_registered_name_is_replaced_and_keeps_its_other_names(
    cluster: Cluster,
) -> None:
    bootstrapped(cluster, "--dns-names", "a.example")
    bootstrapped(cluster)
    assert names(cluster) == (*NAMES[:2], "a.example")
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")


@pytest.mark.parametrize("odd", ["ä.example".encode(), b"a\nexample", b" " * 9])
def test_a_name_that_no_certificate_should_have_is_not_handed_on(
    cluster: Cluster, odd: bytes
) -> None:
    """Of a certificate that somebody else made."""
    name = b"a" * len(odd)
    bootstrapped(cluster, "--dns-names", f"{name.decode()},b.example")
    secret = cluster.store.objects[f"{SECRETS}/noderestrict-tls"]["data"]
    (block,) = certificate_blocks(base64.b64decode(secret["tls.crt"]))
    made = Block(block.label, block.content.replace(name, odd)).encode()
    secret["tls.crt"] = base64.b64encode(made).decode()
    code, output = cluster.certs("check", *TLS, *CA, *HOOKS)
    assert (code, "Traceback" in output, output.count("\n")) == (1, False, 2)
    code, output = cluster.certs("renew", *TLS, *CA, "--force")
    assert code == 0, output
    assert names(cluster) == ("b.example",)


def test_the_cluster_domain_is_given_but_not_asked_for(cluster: Cluster) -> None:
    bootstrapped(cluster, "--dns-names", NAMES[0])
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")
    assert "nothing to do" in cluster.certs("bootstrap", *TLS, *CA, *HOOKS)[1]


def test_a_certificate_of_other_names_is_fine_where_nothing_calls_it(cluster: Cluster) -> None:
    bootstrapped(cluster, "--dns-names", "a.example")
    assert cluster.certs("check", *TLS, *CA) == (0, "all is well\n")


@pytest.mark.parametrize("url", ["https:///validate", "https://[::1/validate"])
def test_a_url_without_a_host_is_told_in_one_line(cluster: Cluster, url: str) -> None:
    register(cluster, {"url": url})
    code, output = cluster.certs("bootstrap", *TLS, *CA, *HOOKS)
    assert (code, output.count("\n")) == (2, 1)
    assert "its URL has no host" in output


def test_a_forced_renewal_replaces_the_certificate_alone(cluster: Cluster) -> None:
    bootstrapped(cluster)
    ca, pair = cluster.store.data("noderestrict-ca"), cluster.store.data("noderestrict-tls")
    registration = cluster.store.objects[REGISTRATION]
    assert "nothing to do" in cluster.certs("renew", *TLS, *CA)[1]
    assert cluster.certs("renew", *TLS, *CA, "--force")[0] == 0
    assert cluster.store.data("noderestrict-tls")["tls.crt"] != pair["tls.crt"]
    assert cluster.store.data("noderestrict-ca") == ca
    assert cluster.store.objects[REGISTRATION] == registration
    assert len(certificates(cluster.bundle())) == 1
    assert SERVICE["service"]["name"] == "noderestrict"
