"""PEM blocks as Go's encoding/pem finds them: each case was tried there."""

import base64
import contextlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from noderestrict.policy.signing_request import (
    csr_alternative_names,
    csr_common_name,
    first_block,
)
from tests import largest

A = b"-----BEGIN A-----\nQUJD\n-----END A-----\n"


@pytest.mark.parametrize(
    ("pem", "block"),
    [
        (A, (b"A", b"ABC")),
        (A.replace(b"\n", b"\r\n"), (b"A", b"ABC")),
        (A.rstrip(), (b"A", b"ABC")),
        (b"a note\n" + A, (b"A", b"ABC")),
        (A + A.replace(b"A-", b"B-"), (b"A", b"ABC")),
        (b"-----BEGIN A-----\nname: value\n\nQUJD\n-----END A-----\n", (b"A", b"ABC")),
        (b"-----BEGIN A-----\n-----END A-----\n", (b"A", b"")),
        # A BEGIN line without an END line of its own is text.
        (b"-----BEGIN B-----\n" + A, (b"A", b"ABC")),
        # A block that is none does not end the search.
        (b"-----BEGIN B-----\nQUJD\n-----END C-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJ\n-----END B-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJDRA=\n-----END B-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJD====\n-----END B-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJD\n-----END B----- x\n" + A, (b"A", b"ABC")),
        (b"x" + A, None),
        (A.replace(b"QUJD", b"Q\x0bUJD"), None),
        (b"-----BEGIN A-----\na: b\n", None),
        (b"", None),
    ],
)
def test_the_first_block_is_found(pem: bytes, block: tuple[bytes, bytes] | None) -> None:
    assert first_block(pem) == block


def test_text_that_never_ends_a_block_is_read_in_one_pass() -> None:
    class Counted(bytes):
        read = 0

        def find(self, *arguments: object) -> int:
            Counted.read += 1
            return super().find(*arguments)  # type: ignore[arg-type]

    assert first_block(Counted(b"-----BEGIN A-----\n" * 10_000)) is None
    assert Counted.read == 1


NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "system:node:n1")])
DER = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(NAME)
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("n1")]), critical=False)
    .sign(ec.derive_private_key(7, ec.SECP256R1()), hashes.SHA256())
    .public_bytes(serialization.Encoding.DER)
)
VERSION_0 = b"\x02\x01\x00\x30"


def pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def test_a_request_of_a_version_that_does_not_exist_is_unreadable() -> None:
    assert csr_common_name(pem(DER)) == "system:node:n1"
    assert VERSION_0 in DER
    other = pem(DER.replace(VERSION_0, b"\x02\x01\x07\x30"))
    for read in (csr_common_name, csr_alternative_names):
        with pytest.raises(ValueError, match="cannot be read"):
            read(other)


class PanicException(BaseException):
    """As libraries in Rust raise it for a defect of their own."""


def test_a_panic_of_the_library_is_an_unreadable_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(_data: bytes) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(x509, "load_der_x509_csr", panic)
    for read in (csr_common_name, csr_alternative_names):
        with pytest.raises(ValueError, match="cannot be read"):
            read(pem(DER))


@given(
    st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(DER)),
)
def test_whatever_is_changed_in_a_request_it_is_read_or_unreadable(
    changes: list[tuple[int, int]], end: int
) -> None:
    der = bytearray(DER)
    for position, byte in changes:
        der[position] = byte
    for body in (bytes(der), bytes(der[:end])):
        for read in (csr_common_name, csr_alternative_names):
            with contextlib.suppress(ValueError):
                read(pem(body))


def test_a_request_after_thousands_of_blocks_headers_or_bytes_is_not_looked_for() -> None:
    block = b"-----BEGIN A-----\n%b-----END A-----\n"
    assert first_block(b"-----END A-----\n" * 50 + block % b"AAAA\n") is not None
    assert first_block(b"\n-----END A-----\n" * 1_000 + block % b"AAAA\n") is None
    assert first_block(block % (b"a: b\n" * 50 + b"\nAAAA\n")) is not None
    assert first_block(block % (b"a: b\n" * 1_000 + b"\nAAAA\n")) is None
    pem = base64.encodebytes(largest.names(100_000))
    whole = b"-----BEGIN CERTIFICATE REQUEST-----\n%b-----END CERTIFICATE REQUEST-----\n" % pem
    with pytest.raises(ValueError, match="over 65536 bytes"):
        csr_common_name(whole)


@given(st.binary(max_size=300))
def test_any_text_has_a_first_block_or_none(text: bytes) -> None:
    first_block(text)
    first_block(b"-----BEGIN A-----\n" + text + b"\n-----END A-----\n")
