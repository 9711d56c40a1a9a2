"""A pair is checked in full before it is served."""

import datetime as dt
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from noderestrict.pki import parsed
from noderestrict.pki.check import KeyPairError, check_pair
from noderestrict.pki.issue import create_authority
from tests.serving.tls import (
    DAY,
    FORMATS,
    NOW,
    PEM,
    Key,
    authority,
    key_pem,
    leaf,
    odd_certificates,
    self_signed,
)  # fmt: skip

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (RSA, FORMATS.PKCS8),
        (RSA, FORMATS.TraditionalOpenSSL),
        (EC, FORMATS.PKCS8),
        (EC, FORMATS.TraditionalOpenSSL),
        (ED25519, FORMATS.PKCS8),
    ],
    ids=["RSA PKCS#8", "RSA PKCS#1", "ECDSA PKCS#8", "ECDSA SEC1", "Ed25519 PKCS#8"],
)
def test_keys_of_every_common_form_are_taken(key: Key, form: serialization.PrivateFormat) -> None:
    pair = check_pair(self_signed(key), key_pem(key, form), now=NOW)
    assert pair.names == ("localhost",)
    assert pair.not_after == (NOW + DAY).replace(microsecond=0)


def refusal(chain: bytes, key: bytes, now: dt.datetime = NOW, names: Sequence[str] = ()) -> str:
    with pytest.raises(KeyPairError) as error:
        check_pair(chain, key, now=now, dns_names=names)
    assert "PRIVATE" not in str(error.value)
    return str(error.value)


def test_a_key_of_another_certificate_is_refused() -> None:
    assert "key" in refusal(self_signed(EC), key_pem(RSA))


def test_a_key_of_an_unusual_kind_is_refused() -> None:
    key = dsa.generate_private_key(2048)
    assert "key" in refusal(self_signed(EC), key_pem(key))
    assert "neither RSA, ECDSA nor Ed25519" in refusal(self_signed(key), key_pem(key))


def test_an_rsa_key_that_go_clients_reject_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A key of 8,193 bits takes seconds to make: lower the limit instead.
    monkeypatch.setattr(parsed, "LONGEST_RSA", 2047)
    assert "2048 bits" in refusal(self_signed(RSA), key_pem(RSA))
    assert check_pair(self_signed(EC), key_pem(EC), now=NOW)


def test_a_damaged_key_is_refused() -> None:
    numbers = RSA.private_numbers()
    damaged = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d ^ 2, numbers.dmp1 ^ 2, numbers.dmq1, numbers.iqmp,
        numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)  # fmt: skip
    assert "damaged" in refusal(self_signed(RSA), key_pem(damaged))


def test_an_encrypted_key_is_refused() -> None:
    secret = serialization.BestAvailableEncryption(b"x")
    assert refusal(self_signed(EC), EC.private_bytes(PEM, FORMATS.PKCS8, secret))


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_and_what_is_no_key_is_refused(content: bytes) -> None:
    assert refusal(content, key_pem(EC))
    assert refusal(self_signed(EC), content)


def test_expired_and_not_yet_valid_pairs_are_refused() -> None:
    assert "expired" in refusal(self_signed(EC), key_pem(EC), now=NOW + 2 * DAY)
    assert refusal(self_signed(EC), key_pem(EC), now=NOW - 2 * DAY)


def test_a_certificate_for_clients_alone_is_refused() -> None:
    chain = self_signed(EC, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert "serverAuth" in refusal(chain, key_pem(EC))
    check_pair(self_signed(EC, usage=None), key_pem(EC), now=NOW)


def test_names_that_are_expected_must_be_covered() -> None:
    chain = self_signed(EC, ["*.svc.example", "a.example"])
    check_pair(chain, key_pem(EC), now=NOW, dns_names=["web.svc.example", "a.example"])
    assert "b.example" in refusal(chain, key_pem(EC), names=["a.example", "b.example"])
    assert "a.b.svc.example" in refusal(chain, key_pem(EC), names=["a.b.svc.example"])


def test_a_chain_begins_with_the_leaf() -> None:
    ca = authority()
    pair = leaf(ca)
    assert check_pair(pair.certificate + ca.certificate, pair.key, now=NOW).warnings == ()
    assert "first certificate" in refusal(ca.certificate + pair.certificate, pair.key)


def test_the_end_of_a_chain_is_that_of_the_first_certificate_that_is_needed_and_not_over() -> None:
    short = create_authority("short", lifetime=DAY / 2, now=NOW)
    pair = leaf(short, lifetime=DAY)
    long = leaf(authority(), lifetime=DAY)
    end = (NOW + DAY).replace(microsecond=0)
    both = check_pair(long.certificate + short.certificate, long.key, now=NOW)
    assert both.not_after == both.chain_not_after == end
    needed = check_pair(pair.certificate + short.certificate, pair.key, now=NOW)
    assert needed.chain_not_after == (NOW + DAY / 2).replace(microsecond=0)


@pytest.mark.parametrize("odd", list(odd_certificates()), ids=lambda odd: str(odd[0]))
def test_what_a_library_chokes_on_is_refused(odd: tuple[str, bytes, bytes]) -> None:
    _, chain, key = odd
    assert refusal(chain, key)


class PanicException(BaseException):
    """As libraries in Rust raise it for a defect of their own."""


def test_a_panic_of_the_library_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(_data: bytes) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(x509, "load_der_x509_certificate", panic)
    assert "PanicException" in refusal(self_signed(EC), key_pem(EC))


def test_a_wish_to_stop_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_data: bytes) -> None:
        raise KeyboardInterrupt

    chain = self_signed(EC)
    monkeypatch.setattr(x509, "load_der_x509_certificate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_pair(chain, key_pem(EC), now=NOW)
