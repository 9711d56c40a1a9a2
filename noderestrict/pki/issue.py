"""Create a CA and the server certificates that it signs."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from noderestrict.pki.check import KeyPairError
from noderestrict.policy.hostile import refused_as

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_PUBLIC = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
# The clocks of other machines may be slow.
_BACKDATE = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign; ``certificate`` and ``key`` are PEM."""

    certificate: bytes
    key: bytes

    def issue(self, names: Sequence[str], *, lifetime: dt.timedelta, now: dt.datetime) -> "Leaf":
        """Return a server certificate for DNS names and IP addresses.

        Args:
            names: at least one; a name that parses as an IP address becomes one.
            lifetime: from ``now``; at most until the CA expires.
            now: an aware time.

        Raises:
            ValueError: ``names`` is empty.
            KeyPairError: the key cannot sign.
        """
        if not names:
            raise ValueError("a server certificate needs at least one name")
        ca = x509.load_pem_x509_certificate(self.certificate)
        ca_key = _ca_key(self.key)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(names[0], ca.subject, key.public_key(), now)
            .not_valid_after(min(now + lifetime, ca.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                _identifier_of(ca),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]),
                critical=False,
            )
            .sign(
                ca_key, None if isinstance(ca_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
            )
        )
        return Leaf(_certificate_pem(certificate), _key_pem(key))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A server certificate with its key, PEM."""

    certificate: bytes
    key: bytes


def load_authority(certificate: bytes, key: bytes, now: dt.datetime) -> Authority:
    """Return a CA that was stored.

    Args:
        certificate: PEM; only the first certificate counts.
        key: PEM, unencrypted: RSA, ECDSA or Ed25519.
        now: an aware time, at which the CA must be valid.

    Raises:
        KeyPairError: the CA cannot sign certificates that callers would trust.
    """
    with refused_as(KeyPairError, "the CA certificate cannot be read"):
        ca = x509.load_pem_x509_certificate(certificate)
        try:
            basic = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            basic = None
        public = ca.public_key().public_bytes(*_PUBLIC)
    if basic is None or not basic.ca:
        raise KeyPairError("the CA certificate does not belong to a CA")
    if _ca_key(key).public_key().public_bytes(*_PUBLIC) != public:
        raise KeyPairError("the CA's key does not belong to its certificate")
    if now < ca.not_valid_before_utc:
        raise KeyPairError(f"the CA is not valid before {ca.not_valid_before_utc:{_TIME}}")
    if now >= ca.not_valid_after_utc:
        raise KeyPairError(f"the CA expired at {ca.not_valid_after_utc:{_TIME}}")
    return Authority(ca.public_bytes(serialization.Encoding.PEM), key)


def _ca_key(
    pem: bytes,
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Leave out the library's message, which may quote the key.
        raise KeyPairError("the CA's key is not an unencrypted PEM key") from None
    if not isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    ):
        raise KeyPairError("the CA's key is neither RSA, ECDSA nor Ed25519")
    return key


def _identifier_of(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier(
            x509.SubjectKeyIdentifier.from_public_key(ca.public_key()).digest, None, None
        )
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def create_authority(name: str, *, lifetime: dt.timedelta, now: dt.datetime) -> Authority:
    """Return a new self-signed CA that passes the strict verification of Python and Go.

    Args:
        name: its common name.
        lifetime: from ``now``.
        now: an aware time.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, subject, key.public_key(), now)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(_certificate_pem(certificate), _key_pem(key))


def _builder(
    common_name: str,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
) -> x509.CertificateBuilder:
    # A common name has at most 64 characters; verifiers read the alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
