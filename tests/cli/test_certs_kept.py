"""A CA that is kept: renewing changes the certificate alone, rotating what callers trust."""

import base64
import copy
import datetime as dt
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from noderestrict import __version__
from noderestrict.certs import bundles
from noderestrict.cli import main
from noderestrict.pki.bundle import certificates, issuer_of, same
from noderestrict.pki.issue import Authority, create_authority
from noderestrict.render.names import CERTIFICATE_NAMES
from noderestrict.render.registration import webhook_configuration
from tests.cli.store import DEEP, Store, served, stored
from tests.serving.tls import DAY, NOW, authority, key_pem, leaf, self_signed

SECRETS = "/api/v1/namespaces/noderestrict/secrets"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/noderestrict"
TLS = ("--secret", "noderestrict/noderestrict-tls")
CA = ("--ca-secret", "noderestrict/noderestrict-ca")
HOOKS = ("--webhook-configuration", "noderestrict")
NAMES = CERTIFICATE_NAMES
RENDERED = sorted(Path(__file__).parents[2].glob("manifests/overlays/*/enforce/registration.yaml"))
SERVICE = {"service": {"name": "noderestrict", "namespace": "noderestrict", "path": "/validate"}}


@pytest.fixture(autouse=True)
def api_servers_notice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "NOTICED_SECONDS", 0)


@dataclass
class Cluster:
    store: Store
    kubeconfig: Path
    capsys: pytest.CaptureFixture[str]

    def certs(self, action: str, *flags: str) -> tuple[int, str]:
        self.capsys.readouterr()
        code = main(["certs", action, *flags, "--kubeconfig", str(self.kubeconfig)])
        return code, "".join(self.capsys.readouterr())

    def bundles(self) -> set[bytes]:
        webhooks = self.store.objects[REGISTRATION]["webhooks"]
        return {base64.b64decode(one["clientConfig"].get("caBundle") or "") for one in webhooks}

    def bundle(self) -> bytes:
        (one,) = self.bundles()
        return one

    def trust_too(self, ca: bytes) -> None:
        value = self.store.objects[REGISTRATION]
        for webhook in value["webhooks"]:
            old = base64.b64decode(webhook["clientConfig"].get("caBundle") or "")
            webhook["clientConfig"]["caBundle"] = base64.b64encode(old + ca).decode()


@pytest.fixture
def cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Cluster]:
    store = Store()
    store.put(REGISTRATION, webhook_configuration(SERVICE))
    with stored(store, tmp_path) as kubeconfig:
        yield Cluster(store, kubeconfig, capsys)


def bootstrapped(cluster: Cluster, *flags: str) -> None:
    code, output = cluster.certs("bootstrap", *TLS, *CA, *HOOKS, *flags)
    assert code == 0, output


def test_bootstrap_makes_a_ca_and_a_certificate_once(cluster: Cluster) -> None:
    assert cluster.certs("check", *TLS, *CA, *HOOKS)[0] == 1
    bootstrapped(cluster)
    ca, pair = cluster.store.data("noderestrict-ca"), cluster.store.data("noderestrict-tls")
    assert ca["tls.crt"] == ca["ca.crt"] == pair["ca.crt"] == cluster.bundle()
    assert issuer_of(pair["tls.crt"], ca["tls.crt"]) is not None
    assert ca["tls.key"] not in pair.values()
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")
    assert "nothing to do" in cluster.certs("bootstrap", *TLS, *CA, *HOOKS)[1]
    assert cluster.store.data("noderestrict-ca") == ca
    assert cluster.store.data("noderestrict-tls") == pair


@pytest.mark.parametrize("ended", ["expired", "soon", "for other names", "by another CA", "gone"])
def test_renewing_replaces_the_certificate_alone(cluster: Cluster, ended: str) -> None:
    bootstrapped(cluster)
    registration = cluster.store.objects[REGISTRATION]
    kept = cluster.store.data("noderestrict-ca")
    names = NAMES
    ca = Authority(kept["tls.crt"], kept["tls.key"])
    bad = {
        "expired": leaf(ca, *names, lifetime=DAY, now=NOW - 2 * DAY),
        "soon": leaf(ca, *names, lifetime=20 * DAY),
        "for other names": leaf(ca, "elsewhere"),
        "by another CA": create_authority("other", lifetime=3650 * DAY, now=NOW).issue(
            names, lifetime=365 * DAY, now=NOW
        ),
    }.get(ended)
    path = f"{SECRETS}/noderestrict-tls"
    held = {} if bad is None else {"tls.crt": bad.certificate, "tls.key": bad.key}
    data = {key: base64.b64encode(value).decode() for key, value in held.items()}
    cluster.store.put(path, {**cluster.store.objects[path], "data": data})
    # All that the renewing account may do.
    allowed = {("GET", path), ("PUT", path), ("GET", f"{SECRETS}/noderestrict-ca")}
    cluster.store.asked.clear()
    # As the CronJob does.
    wanted = ("--dns-names", ",".join(NAMES))
    assert cluster.certs("renew", *TLS, *CA, *wanted)[0] == 0
    assert set(cluster.store.asked) <= allowed
    renewed = cluster.store.data("noderestrict-tls")
    assert issuer_of(renewed["tls.crt"], kept["tls.crt"]) is not None
    assert renewed["ca.crt"] == kept["ca.crt"]
    assert cluster.store.objects[REGISTRATION] == registration
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")
    assert "nothing to do" in cluster.certs("renew", *TLS, *CA)[1]


def test_renewing_by_force_replaces_a_certificate_that_is_good(cluster: Cluster) -> None:
    bootstrapped(cluster)
    good = cluster.store.data("noderestrict-tls")
    # Whose names are given is not read before.
    wanted = ("--dns-names", ",".join(NAMES))
    code, output = cluster.certs("renew", "--force", *TLS, *CA, *wanted)
    assert code == 0, output
    renewed = cluster.store.data("noderestrict-tls")
    assert renewed["tls.crt"] != good["tls.crt"]
    assert renewed["ca.crt"] == good["ca.crt"]


def test_renewing_makes_no_ca(cluster: Cluster) -> None:
    code, output = cluster.certs("renew", *TLS, *CA)
    assert code == 2
    assert output.count("\n") == 1
    assert "Secret noderestrict/noderestrict-ca: there is no CA" in output
    assert f"{SECRETS}/noderestrict-tls" not in cluster.store.objects


def without_key(ca: dict[str, str]) -> None:
    del ca["tls.key"]


def other_key(ca: dict[str, str]) -> None:
    ca["tls.key"] = base64.b64encode(authority().key).decode()


def no_pem(ca: dict[str, str]) -> None:
    ca["tls.crt"] = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nx").decode()


def no_ca(ca: dict[str, str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    ca["tls.crt"] = base64.b64encode(self_signed(key)).decode()
    ca["tls.key"] = base64.b64encode(key_pem(key)).decode()


def expired(ca: dict[str, str]) -> None:
    old = create_authority("old", lifetime=DAY, now=NOW - 2 * DAY)
    ca["tls.crt"] = ca["ca.crt"] = base64.b64encode(old.certificate).decode()
    ca["tls.key"] = base64.b64encode(old.key).decode()


def odd_ca(
    key: Any = None, extension: x509.ExtensionType | None = None, *, signs: bool = True
) -> Callable[[dict[str, str]], None]:
    """Return what replaces the CA by one that a library signs with, and that callers refuse."""

    def replace(ca: dict[str, str]) -> None:
        signer = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
        usage = x509.KeyUsage(True, False, False, False, False, signs, signs, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(signer.public_key())
            .serial_number(5)
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + 3000 * DAY)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(usage, critical=True)
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        made = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
        ca["tls.crt"] = ca["ca.crt"] = base64.b64encode(made).decode()
        ca["tls.key"] = base64.b64encode(key_pem(signer)).decode()

    return replace


ELSEWHERE = x509.NameConstraints([x509.DNSName("example.com")], None)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
REFUSED = "callers would refuse what it signs: "


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (odd_ca(signs=False), f"{REFUSED}the key usage of 'CN=odd' does not allow it to sign"),
        (odd_ca(extension=CLIENTS), f"{REFUSED}the extended key usage of 'CN=odd' lacks server"),
        (odd_ca(extension=ELSEWHERE), f"{REFUSED}'CN=odd' may not sign for noderestrict"),
        (odd_ca(extension=UNKNOWN), f"{REFUSED}'CN=odd' has a critical extension"),
        (odd_ca(ec.generate_private_key(ec.SECP256K1())), f"{REFUSED}the CA bundle has no"),
        (without_key, "there is no CA"),
        (other_key, "does not belong"),
        (no_pem, "cannot be read"),
        (no_ca, "does not belong to a CA"),
        (expired, "expired"),
    ],
)
def test_a_ca_that_cannot_sign_is_told_in_one_line_and_made_anew_by_bootstrap(
    cluster: Cluster, damage: Callable[[dict[str, str]], None], message: str
) -> None:
    bootstrapped(cluster)
    damage(cluster.store.objects[f"{SECRETS}/noderestrict-ca"]["data"])
    path = f"{SECRETS}/noderestrict-tls"
    cluster.store.put(path, {**cluster.store.objects[path], "data": {}})
    code, output = cluster.certs("renew", *TLS, *CA)
    assert (code, output.count("\n")) == (2, 1)
    assert message in output
    assert cluster.certs("check", *TLS, *CA, *HOOKS)[0] == 1
    bootstrapped(cluster)
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")


@pytest.mark.parametrize("action", ["bootstrap", "renew", "rotate"])
def test_a_ca_whose_key_has_a_password_is_not_overwritten(cluster: Cluster, action: str) -> None:
    bootstrapped(cluster)
    held = cluster.store.objects[f"{SECRETS}/noderestrict-ca"]["data"]
    key = load_pem_private_key(base64.b64decode(held["tls.key"]), None)
    secret = BestAvailableEncryption(b"secret")
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
    held["tls.key"] = base64.b64encode(encrypted).decode()
    kept = dict(held)
    hooks = () if action == "renew" else HOOKS
    code, output = cluster.certs(action, *TLS, *CA, *hooks)
    assert (code, output.count("\n")) == (2, 1)
    assert "Secret noderestrict/noderestrict-ca: tls.key is encrypted" in output
    assert cluster.store.objects[f"{SECRETS}/noderestrict-ca"]["data"] == kept


def test_a_bundle_that_cannot_be_read_is_in_nobodys_way(cluster: Cluster) -> None:
    def spoil() -> None:
        for webhook in cluster.store.objects[REGISTRATION]["webhooks"]:
            webhook["clientConfig"]["caBundle"] = base64.b64encode(b"no PEM").decode()

    spoil()
    bootstrapped(cluster)
    spoil()
    assert cluster.certs("rotate", *TLS, *CA, *HOOKS)[0] == 0
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")
    spoil()
    for action in ("bootstrap", "rotate", "bootstrap"):
        assert cluster.certs(action, *TLS, *HOOKS)[0] == 0
    assert cluster.certs("check", *TLS, *HOOKS) == (0, "all is well\n")


@pytest.mark.parametrize("spoilt", [b"no PEM", b"-----BEGIN CERTIFICATE-----\nx", b""])
def test_a_ca_beside_the_certificate_that_cannot_be_read_is_written_again(
    cluster: Cluster, spoilt: bytes
) -> None:
    bootstrapped(cluster)
    good = cluster.store.data("noderestrict-tls")
    data = cluster.store.objects[f"{SECRETS}/noderestrict-tls"]["data"]
    for action, flags in (("renew", ()), ("bootstrap", HOOKS)):
        data["ca.crt"] = base64.b64encode(spoilt).decode()
        assert cluster.certs(action, *TLS, *CA, *flags)[0] == 0
        assert cluster.store.data("noderestrict-tls") == good


def test_a_registration_is_not_written_with_a_ca_that_cannot_be_read(
    cluster: Cluster, tmp_path: Path
) -> None:
    bootstrapped(cluster)
    data = cluster.store.objects[f"{SECRETS}/noderestrict-tls"]["data"]
    data["ca.crt"] = base64.b64encode(b"no PEM").decode()
    file = tmp_path / "webhook.yaml"
    file.write_text(yaml.safe_dump(webhook_configuration(SERVICE)))
    code, output = cluster.certs("bootstrap", *TLS, "--unserved", "--registration", str(file))
    assert code == 2
    assert "Secret noderestrict/noderestrict-tls: ca.crt has no certificate that can be" in output


@pytest.mark.parametrize(("secret", "read"), [("noderestrict-ca", 1), ("noderestrict-tls", 2)])
def test_of_two_jobs_at_once_the_later_one_gives_up_and_all_fits_together(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, secret: str, read: int
) -> None:
    answer, path = cluster.store.answer, f"{SECRETS}/{secret}"
    codes = []

    def overtaken(method: str, asked: str, body: Any) -> Any:
        found = answer(method, asked, body)
        if cluster.store.asked.count(("GET", path)) == read and (method, asked) == ("GET", path):
            codes.append(cluster.certs("bootstrap", *TLS, *CA, *HOOKS)[0])
        return found

    monkeypatch.setattr(cluster.store, "answer", overtaken)
    code, output = cluster.certs("bootstrap", *TLS, *CA, *HOOKS)
    assert (code, codes) == (2, [0])
    assert f"Secret noderestrict/{secret}: somebody else has written it" in output
    assert cluster.certs("check", *TLS, *CA, *HOOKS) == (0, "all is well\n")


def test_every_write_names_its_field_manager_and_every_request_its_version(
    cluster: Cluster,
) -> None:
    bootstrapped(cluster)
    cluster.trust_too(authority().certificate)
    bootstrapped(cluster)
    assert cluster.certs("renew", *TLS, *CA, "--force")[0] == 0
    writes = [(method, path) for method, path, _ in cluster.store.heads if method != "GET"]
    assert {method for method, _ in writes} == {"POST", "PUT", "PATCH"}
    assert all(path.endswith("?fieldManager=noderestrict") for _, path in writes)
    agents = {head["User-Agent"] for _, _, head in cluster.store.heads}
    assert agents == {f"noderestrict/{__version__}"}


def test_bootstrap_puts_back_exactly_the_ca_that_is_kept(cluster: Cluster) -> None:
    bootstrapped(cluster)
    kept = cluster.bundle()
    cluster.trust_too(authority().certificate)
    code, output = cluster.certs("check", *TLS, *CA, *HOOKS)
    assert code == 1
    assert "is not the CA that is kept" in output
    bootstrapped(cluster)
    assert cluster.bundle() == kept


def test_a_ca_is_replaced_once_the_new_certificate_is_served(cluster: Cluster) -> None:
    bootstrapped(cluster)
    first = cluster.bundle()
    other = authority().certificate
    cluster.trust_too(other)
    code, output = cluster.certs(
        "rotate", *TLS, *CA, *HOOKS, "--served-at", "127.0.0.1:1", "--wait", "0"
    )
    assert code == 0
    assert "not served yet" in output
    assert len(certificates(cluster.bundle())) == 3
    assert same(cluster.store.data("noderestrict-tls")["ca.crt"],
                cluster.store.data("noderestrict-ca")["ca.crt"])  # fmt: skip
    # Until then a renewal is by the new CA, and both stay trusted.
    path = f"{SECRETS}/noderestrict-tls"
    cluster.store.put(path, {**cluster.store.objects[path], "data": {}})
    assert cluster.certs("renew", *TLS, *CA)[0] == 0
    with served(cluster.store, "noderestrict-tls") as address:
        code, output = cluster.certs("rotate", *TLS, *CA, *HOOKS, "--served-at", address)
    assert code == 0
    assert "the old CA is dropped" in output
    second = cluster.store.data("noderestrict-ca")["tls.crt"]
    assert second != first
    assert same(cluster.bundle(), second + other)
    assert cluster.store.data("noderestrict-tls")["ca.crt"] == second


def test_without_an_address_the_old_ca_is_dropped_by_a_second_rotation(cluster: Cluster) -> None:
    bootstrapped(cluster)
    assert "rotate again" in cluster.certs("rotate", *TLS, *CA, *HOOKS)[1]
    second = cluster.store.data("noderestrict-ca")["tls.crt"]
    assert len(certificates(cluster.bundle())) == 2
    assert "is dropped" in cluster.certs("rotate", *TLS, *CA, *HOOKS)[1]
    assert cluster.bundle() == cluster.store.data("noderestrict-ca")["ca.crt"] == second


def test_a_ca_that_is_not_kept_leaves_those_of_other_servers_in_the_bundle(
    cluster: Cluster,
) -> None:
    other = authority().certificate
    cluster.trust_too(other)
    assert cluster.certs("bootstrap", *TLS, *HOOKS)[0] == 0
    with served(cluster.store, "noderestrict-tls") as address:
        for _ in range(2):
            code, output = cluster.certs("rotate", *TLS, *HOOKS, "--served-at", address)
            assert code == 0
            assert "the old CA is dropped" in output
            own = cluster.store.data("noderestrict-tls")["ca.crt"]
            assert same(cluster.bundle(), other + own)
            assert len(certificates(own)) == 1


def test_a_rotation_that_was_not_served_is_made_up_for_by_the_next(cluster: Cluster) -> None:
    other = authority().certificate
    cluster.trust_too(other)
    assert cluster.certs("bootstrap", *TLS, *HOOKS)[0] == 0
    away = ("--served-at", "127.0.0.1:1", "--wait", "0")
    assert "not served yet" in cluster.certs("rotate", *TLS, *HOOKS, *away)[1]
    assert len(certificates(cluster.bundle())) == 3
    with served(cluster.store, "noderestrict-tls") as address:
        cluster.certs("rotate", *TLS, *HOOKS, "--served-at", address)
    assert same(cluster.bundle(), other + cluster.store.data("noderestrict-tls")["ca.crt"])


def test_a_pair_without_its_ca_is_replaced_with_what_verified_it(cluster: Cluster) -> None:
    other, own = authority(), authority()
    cluster.trust_too(other.certificate + own.certificate)
    pair = leaf(own, "noderestrict.noderestrict.svc")
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    cluster.store.put(
        f"{SECRETS}/noderestrict-tls",
        {"metadata": {"name": "noderestrict-tls"},
         "data": {key: base64.b64encode(value).decode() for key, value in data.items()}},
    )  # fmt: skip
    with served(cluster.store, "noderestrict-tls") as address:
        cluster.certs("rotate", *TLS, *HOOKS, "--served-at", address)
    new = cluster.store.data("noderestrict-tls")["ca.crt"]
    assert same(cluster.bundle(), other.certificate + new)


def tampered(value: dict[str, Any]) -> None:
    first = value["webhooks"][0]
    first["objectSelector"] = {"matchLabels": {"nothing": "matches"}}
    first["matchConditions"].append({"name": "never", "expression": "false"})
    first["clientConfig"] = {"url": "https://elsewhere/"}
    del value["webhooks"][1]
    value["webhooks"].append({**first, "name": "another.noderestrict.io"})


def test_a_registration_is_written_whole_in_place_of_what_was_changed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text(yaml.safe_dump_all([{"kind": "Other"}, webhook_configuration(SERVICE)]))
    flags = (*TLS, *CA, "--unserved", "--registration")
    del cluster.store.objects[REGISTRATION]
    assert cluster.certs("bootstrap", *flags, str(file))[0] == 0
    wanted = copy.deepcopy(cluster.store.objects[REGISTRATION]["webhooks"])
    assert cluster.bundle() == cluster.store.data("noderestrict-ca")["ca.crt"]
    tampered(cluster.store.objects[REGISTRATION])
    cluster.store.objects[REGISTRATION]["metadata"]["annotations"] = {"a": "b"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert cluster.certs("bootstrap", *flags, "-")[0] == 0
    assert cluster.store.objects[REGISTRATION]["webhooks"] == wanted
    assert cluster.store.objects[REGISTRATION]["metadata"]["annotations"] == {"a": "b"}


def test_managed_fields_of_any_depth_keep_nothing_from_being_put_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    bootstrapped(cluster)
    ca = cluster.bundle()
    file = tmp_path / "webhook.yaml"
    file.write_text(yaml.safe_dump(webhook_configuration(SERVICE)))
    tampered(cluster.store.objects[REGISTRATION])
    for path in (REGISTRATION, f"{SECRETS}/noderestrict-tls", f"{SECRETS}/noderestrict-ca"):
        cluster.store.objects[path]["metadata"]["managedFields"] = DEEP
    code, output = cluster.certs("bootstrap", *TLS, *CA, "--unserved", "--registration", str(file))
    assert code == 0, output
    assert cluster.bundle() == ca


@pytest.mark.parametrize("file", RENDERED, ids=lambda file: file.parents[1].name)
def test_what_stands_for_the_ca_in_our_manifests_is_replaced(cluster: Cluster, file: Path) -> None:
    code, output = cluster.certs("bootstrap", *TLS, *CA, "--unserved", "--registration", str(file))
    assert code == 0, output
    assert b"BEGIN CERTIFICATE" in cluster.bundle()


def planned(**fields: Any) -> str:
    kind = "ValidatingWebhookConfiguration"
    return json.dumps({"kind": kind, "metadata": {"name": "a"}, "webhooks": [], **fields})


def calling(client: Any) -> str:
    return planned(webhooks=[{"name": "b", "clientConfig": client}])


def test_a_registration_may_hold_a_date_and_stand_in_a_list(
    cluster: Cluster, tmp_path: Path
) -> None:
    """As kubectl writes several, and as YAML reads text that looks like a date."""
    value = webhook_configuration(SERVICE)
    value["metadata"]["annotations"] = {"since": "@"}
    file = tmp_path / "webhook.yaml"
    listed = yaml.safe_dump({"kind": "List", "items": [value]})
    file.write_text(listed.replace("'@'", "2020-01-01"))
    code, output = cluster.certs("bootstrap", *TLS, *CA, "--unserved", "--registration", str(file))
    assert code == 0, output
    found = cluster.store.objects[REGISTRATION]["metadata"]["annotations"]
    assert found == {"since": "2020-01-01"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod", "there is no ValidatingWebhookConfiguration"),
        ("a: [", "--registration"),
        ("kind: ValidatingWebhookConfiguration", "required field `metadata`"),
        (planned(webhooks=[{"name": "b"}]), "field `clientConfig` - at `$.webhooks[0]`"),
        (planned(webhooks=[{"clientConfig": {}}]), "field `name` - at `$.webhooks[0]`"),
        (planned(webhooks=["b"]), "got `str` - at `$.webhooks[0]`"),
        (planned(webhooks=None), "got `null` - at `$.webhooks`"),
        (planned(metadata="a"), "got `str` - at `$.metadata`"),
        (planned(metadata={"name": 5}), "got `int` - at `$.metadata.name`"),
        (planned(metadata={"name": "a/b"}), "at `$.metadata.name`"),
        (planned(metadata={"name": "a", "labels": "x"}), "at `$.metadata.labels`"),
        (calling({}), "webhook b: its URL has no host"),
        (calling({"url": 5}), "at `$.webhooks[0].clientConfig.url`"),
        (calling({"url": "https://[::1"}), "webhook b: its URL has no host"),
        (calling({"url": "https://ä.example/"}), "webhook b: its URL has the host 'ä.example'"),
        (calling({"service": "a"}), "at `$.webhooks[0].clientConfig.service`"),
        (calling({"service": {"name": "a"}}), "`namespace` - at `$.webhooks[0].clientConfig"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_registration_is_told_in_one_line(
    cluster: Cluster, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text(text)
    code, output = cluster.certs("bootstrap", *TLS, *CA, "--unserved", "--registration", str(file))
    assert code == 2
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output


def test_a_registration_needs_a_ca_that_is_known(cluster: Cluster, tmp_path: Path) -> None:
    own = authority()
    cluster.trust_too(own.certificate)
    pair = leaf(own, *NAMES, lifetime=20 * DAY)
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    cluster.store.put(
        f"{SECRETS}/noderestrict-tls",
        {"metadata": {"name": "noderestrict-tls"},
         "data": {key: base64.b64encode(value).decode() for key, value in data.items()}},
    )  # fmt: skip
    file = tmp_path / "webhook.yaml"
    file.write_text(yaml.safe_dump(webhook_configuration(SERVICE)))
    code, output = cluster.certs(
        "bootstrap", *TLS, "--renew-before", "5", "--registration", str(file)
    )
    assert (code, output.count("\n")) == (2, 1)
    assert "ca.crt is missing" in output


def test_a_link_to_a_directory_is_no_place_apart(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "tls", target_is_directory=True)
    places = ("--directory", str(tmp_path / "tls"), "--ca-directory", str(tmp_path / "link"))
    assert main(["certs", "bootstrap", *places]) == 2
    assert "need separate places" in capsys.readouterr().err


def test_the_ca_may_be_kept_in_a_directory(tmp_path: Path, capsys: Any) -> None:
    place = ("--directory", str(tmp_path / "tls"))
    ca = ("--ca-directory", str(tmp_path / "ca"))
    assert main(["certs", "bootstrap", *place, *ca]) == 0
    kept = (tmp_path / "ca" / "tls.crt").read_bytes()
    assert (tmp_path / "ca" / "tls.key").stat().st_mode & 0o777 == 0o600
    assert main(["certs", "renew", *place, *ca, "--renew-before", "3000"]) == 0
    assert issuer_of((tmp_path / "tls" / "tls.crt").read_bytes(), kept) is not None
    assert main(["certs", "check", *place, *ca]) == 0
    capsys.readouterr()
    assert main(["certs", "check", *place, "--ca-directory", str(tmp_path / "tls")]) == 2
    assert "need separate places" in capsys.readouterr().err


def test_a_leaf_ends_no_later_than_its_ca(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    place = ("--directory", str(tmp_path / "tls"), "--ca-directory", str(tmp_path / "ca"))
    assert main(["certs", "bootstrap", *place, "--ca-lifetime", "100"]) == 0
    (one,) = certificates((tmp_path / "tls" / "tls.crt").read_bytes())
    assert one.not_valid_after_utc < now + dt.timedelta(days=101)
