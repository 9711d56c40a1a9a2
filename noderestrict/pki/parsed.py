"""One certificate, as Go's ``crypto/x509`` reads it.

A Go client reads every certificate that a server sends, needed or not: one that it cannot read ends
the handshake.
"""

import contextlib
import datetime as dt
import ipaddress
import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, PublicKeyAlgorithmOID

from noderestrict.errors import NoderestrictError
from noderestrict.policy.hostile import refused_as

#: In bits: a Go client ends the handshake if any certificate has a longer RSA key, and verifies
#: nothing with a shorter one.
LONGEST_RSA, SHORTEST_RSA = 8192, 1024
#: Go knows no others. Certificates with keys on P-224 can be read, but not served.
_CURVES = (ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SERVED_CURVES = _CURVES[1:]
PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_WEAK_HASHES = ("md5", "sha1")
#: Of a subject in a message.
_LONGEST_NAME = 200
#: Critical extensions that Go understands.
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.INHIBIT_ANY_POLICY,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    }
)
_NEVER_CRITICAL = (
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
)
_SERVER_USAGES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_READABLE = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)


class KeyPairError(NoderestrictError, ValueError):
    """A certificate and key must not be served; the message says why, without key material."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A certificate.

    Attributes:
        certificate: as the library has it.
        der: its encoding.
        subject: encoded; names are equal only if they are encoded equally.
        issuer: encoded.
        public_key: encoded.
        dns_names: DNS names of the subject alternative name.
        addresses: IP addresses of the subject alternative name.
        is_ca: whether the basic constraints say so; None without basic constraints.
        path_length: how many intermediates may follow; None for any number.
        may_sign: whether the key usage lets it sign certificates.
        serves: whether the extended key usage, if there is one, includes servers.
        constraints: on the names of what it signs; None if there are none.
        unknown: a critical extension that Go does not understand, "" if there is none.
    """

    certificate: x509.Certificate
    der: bytes
    subject: bytes
    issuer: bytes
    public_key: bytes
    dns_names: tuple[str, ...]
    addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    is_ca: bool | None
    path_length: int | None
    may_sign: bool
    serves: bool
    constraints: x509.NameConstraints | None
    unknown: str

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names and IP addresses, as text."""
        return (*self.dns_names, *map(str, self.addresses))

    @property
    def is_self_issued(self) -> bool:
        """Whether it names itself as its issuer."""
        return self.subject == self.issuer

    def __str__(self) -> str:
        return repr(self.certificate.subject.rfc4514_string()[:_LONGEST_NAME])

    def time_problem(self, now: dt.datetime) -> str:
        """Return why it is not valid at a time; "" if it is."""
        begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        if now >= end:
            return f"expired at {end:%Y-%m-%dT%H:%M:%SZ}"
        return f"is not valid before {begin:%Y-%m-%dT%H:%M:%SZ}" if now < begin else ""

    def signature_problem(self) -> str:
        """Return why Go verifies its signature with no key at all; "" if it does."""
        algorithm = self.certificate.signature_hash_algorithm
        if algorithm is not None and algorithm.name in _WEAK_HASHES:
            return f"is signed with {algorithm.name.upper().replace('SHA1', 'SHA-1')}"
        return ""

    def key_problem(self) -> str:
        """Return why Go verifies nothing with its key; "" if it does."""
        key = self.certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < SHORTEST_RSA:
            return f"has an RSA key of {key.key_size} bits; Go takes at least {SHORTEST_RSA}"
        return "" if isinstance(key, _READABLE) else f"has a {_kind(key)} key"

    def serving_problem(self) -> str:
        """Return why no Go client completes a handshake with its key; "" if one does."""
        key = self.certificate.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _SERVED_CURVES):
            return f"has a key on {key.curve.name}, which TLS clients in Go do not support"
        return self.key_problem()


def parse(der: bytes) -> Parsed:
    """Return a certificate that Go can read.

    Raises:
        KeyPairError: Go cannot read it; the message says why.
    """
    with refused_as(KeyPairError, "it cannot be read"), warnings.catch_warnings():
        # The library warns of what Go refuses, which is checked below.
        warnings.simplefilter("ignore")
        certificate = x509.load_der_x509_certificate(der)
        _check_readable(certificate)
        return _parsed(certificate, der)


def _check_readable(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise KeyPairError("it has an RSASSA-PSS key, which Go does not know")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size > LONGEST_RSA:
        raise KeyPairError(
            f"its RSA key has {key.key_size} bits; Go clients, such as the API server, accept at "
            f"most {LONGEST_RSA}"
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _CURVES):
        raise KeyPairError(f"its key is on {key.curve.name}, a curve that Go does not know")
    if certificate.serial_number < 0:
        raise KeyPairError("its serial number is negative")
    # Raises ValueError if the certificate names another algorithm inside than outside.
    _ = certificate.signature_algorithm_oid, certificate.signature
    for extension in certificate.extensions:
        if extension.critical and extension.oid in _NEVER_CRITICAL:
            raise KeyPairError(f"its extension {_name(extension)} is critical, which Go refuses")


def _parsed(certificate: x509.Certificate, der: bytes) -> Parsed:
    extensions = certificate.extensions
    alternative = _extension(extensions, x509.SubjectAlternativeName)
    basic = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    extended = _extension(extensions, x509.ExtendedKeyUsage)
    dns_names = alternative.get_values_for_type(x509.DNSName) if alternative else []
    addresses = alternative.get_values_for_type(x509.IPAddress) if alternative else []
    return Parsed(
        certificate,
        der,
        certificate.subject.public_bytes(),
        certificate.issuer.public_bytes(),
        certificate.public_key().public_bytes(*PUBLIC),
        tuple(dns_names),
        tuple(_address(one) for one in addresses),
        None if basic is None else basic.ca,
        None if basic is None else basic.path_length,
        usage is None or usage.key_cert_sign,
        extended is None or not set(extended) or bool(_SERVER_USAGES & set(extended)),
        _extension(extensions, x509.NameConstraints),
        next((_name(one) for one in extensions if one.critical and not _understood(one)), ""),
    )


def _extension(
    extensions: x509.Extensions, kind: type[x509.extensions.ExtensionTypeVar]
) -> x509.extensions.ExtensionTypeVar | None:
    with contextlib.suppress(x509.ExtensionNotFound):
        return extensions.get_extension_for_class(kind).value
    return None


def _understood(extension: x509.Extension[x509.ExtensionType]) -> bool:
    value = extension.value
    if isinstance(value, x509.SubjectAlternativeName):
        known = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
        return any(isinstance(name, known) for name in value)
    return extension.oid in _UNDERSTOOD


def _address(value: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if not isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        raise KeyPairError(f"its subject alternative name has the network {value}")
    return value


def _name(extension: x509.Extension[x509.ExtensionType]) -> str:
    return extension.oid.dotted_string


def _kind(key: object) -> str:
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")
