"""Check a certificate chain and its key before serving them."""

import datetime as dt
import fnmatch
import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from noderestrict.errors import NoderestrictError
from noderestrict.policy.hostile import refused_as

_PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_KEY_TYPES = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
_SIGNED = b"noderestrict"
#: In bits. A handshake with a larger key takes hundreds of milliseconds of CPU.
_LARGEST_RSA_KEY = 8192


class KeyPairError(NoderestrictError, ValueError):
    """A certificate and key must not be served; the message says why, without key material."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A checked pair.

    Attributes:
        not_before: from when on the leaf is valid; of two pairs, the later one is newer.
        not_after: when the first certificate of the chain that does so expires.
        names: DNS names and IP addresses of the leaf.
        serial: of the leaf, in hexadecimal.
    """

    not_before: dt.datetime
    not_after: dt.datetime
    names: tuple[str, ...]
    serial: str


def check_pair(
    certificate: bytes, key: bytes, *, now: dt.datetime, dns_names: Sequence[str] = ()
) -> KeyPair:
    """Check a PEM chain (leaf first) and its PEM key (PKCS#8, PKCS#1 or SEC1).

    Args:
        certificate: the chain.
        key: RSA, ECDSA or Ed25519, unencrypted.
        now: an aware time, at which the chain must be valid.
        dns_names: names that the leaf must cover.

    Raises:
        KeyPairError: the pair must not be served.
    """
    with refused_as(KeyPairError, "the certificate cannot be read"):
        return _checked(certificate, key, now, dns_names)


def _checked(certificate: bytes, key: bytes, now: dt.datetime, dns_names: Sequence[str]) -> KeyPair:
    chain = _parse_chain(certificate)
    _check_key(chain[0], key)
    for issued, issuer in itertools.pairwise(chain):
        _check_issuer(issued, issuer)
    for position, link in enumerate(chain):
        _check_time(link, position, now)
    _check_usage(chain[0])
    names = _names(chain[0])
    missing = [name for name in dns_names if not _covered(name, names)]
    if missing:
        raise KeyPairError(
            f"the certificate is for {', '.join(names) or 'no name'}; "
            f"it does not cover {', '.join(missing)}"
        )
    not_after = min(link.not_valid_after_utc for link in chain)
    return KeyPair(chain[0].not_valid_before_utc, not_after, names, f"{chain[0].serial_number:x}")


def _parse_chain(certificate: bytes) -> list[x509.Certificate]:
    if not certificate.strip():
        raise KeyPairError("the certificate is empty")
    with refused_as(KeyPairError, "the certificate is not a PEM chain"):
        return x509.load_pem_x509_certificates(certificate)


def _check_key(leaf: x509.Certificate, key: bytes) -> None:
    if not key.strip():
        raise KeyPairError("the key is empty")
    # Leave out the library's message, which may quote the key.
    with refused_as(KeyPairError, "the key is not an unencrypted PEM key", why=False):
        # The full check of an RSA key blocks the process for up to 300 ms; a signature is enough.
        private = serialization.load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(private, _KEY_TYPES):
        raise KeyPairError("the key is neither RSA, ECDSA nor Ed25519")
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size > _LARGEST_RSA_KEY:
        raise KeyPairError(
            f"the RSA key has {private.key_size} bits; Go clients, such as the API server, accept "
            f"at most {_LARGEST_RSA_KEY}"
        )
    with refused_as(KeyPairError, "the certificate's key cannot be read"):
        public = leaf.public_key()
    if private.public_key().public_bytes(*_PUBLIC) != public.public_bytes(*_PUBLIC):
        raise KeyPairError("the key does not belong to the first certificate")
    damaged = "the key is damaged: its certificate does not verify what it signs"
    with refused_as(KeyPairError, damaged, why=False):
        _sign_and_verify(private, public)


def _sign_and_verify(private: object, public: object) -> None:
    """Raise InvalidSignature if the keys are not a pair, or ValueError if the key cannot sign."""
    match private, public:
        case rsa.RSAPrivateKey(), rsa.RSAPublicKey():
            scheme = padding.PKCS1v15(), hashes.SHA256()
            public.verify(private.sign(_SIGNED, *scheme), _SIGNED, *scheme)
        case ec.EllipticCurvePrivateKey(), ec.EllipticCurvePublicKey():
            algorithm = ec.ECDSA(hashes.SHA256())
            public.verify(private.sign(_SIGNED, algorithm), _SIGNED, algorithm)
        case ed25519.Ed25519PrivateKey(), ed25519.Ed25519PublicKey():
            public.verify(private.sign(_SIGNED), _SIGNED)
        case _:
            raise InvalidSignature


def _check_issuer(issued: x509.Certificate, issuer: x509.Certificate) -> None:
    disorder = f"the chain is out of order: {_subject(issuer)} did not issue {_subject(issued)}"
    with refused_as(KeyPairError, disorder, why=False):
        issued.verify_directly_issued_by(issuer)


def _check_time(link: x509.Certificate, position: int, now: dt.datetime) -> None:
    which = "the certificate" if position == 0 else f"certificate {position + 1} of the chain"
    if now >= link.not_valid_after_utc:
        raise KeyPairError(f"{which} expired at {link.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if now < link.not_valid_before_utc:
        raise KeyPairError(
            f"{which} is not valid before {link.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        )


def _check_usage(leaf: x509.Certificate) -> None:
    with refused_as(KeyPairError, "the certificate's extensions cannot be read"):
        try:
            usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(
        usage
    ):
        raise KeyPairError("the certificate's extended key usage lacks serverAuth")


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    with refused_as(KeyPairError, "the certificate's names cannot be read"):
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        addresses = names.get_values_for_type(x509.IPAddress)
        return (*names.get_values_for_type(x509.DNSName), *map(str, addresses))


def _covered(name: str, names: Sequence[str]) -> bool:
    try:
        return str(ipaddress.ip_address(name)) in names
    except ValueError:
        pass
    wanted = name.lower().rstrip(".")
    for pattern in map(str.lower, names):
        same_depth = pattern.count(".") == wanted.count(".")
        if pattern == wanted or (
            pattern.startswith("*.") and same_depth and fnmatch.fnmatchcase(wanted, pattern)
        ):
            return True
    return False


def _subject(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string())
