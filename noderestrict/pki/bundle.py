"""CA bundles: several certificates in PEM."""

import datetime as dt

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from noderestrict.pki.check import KeyPairError
from noderestrict.policy.hostile import refused_as


def certificates(bundle: bytes) -> list[x509.Certificate]:
    """Return the certificates of a bundle; [] for an empty one.

    Raises:
        KeyPairError: the bundle is not PEM.
    """
    if not bundle.strip():
        return []
    with refused_as(KeyPairError, "the CA bundle cannot be read"):
        return x509.load_pem_x509_certificates(bundle)


def joined(first: bytes, second: bytes, now: dt.datetime) -> bytes:
    """Return the certificates of two bundles, each once, without expired ones.

    Raises:
        KeyPairError: one of the bundles is not PEM.
    """
    kept = dict.fromkeys(
        certificate.public_bytes(Encoding.PEM)
        for certificate in [*certificates(first), *certificates(second)]
        if certificate.not_valid_after_utc > now
    )
    return b"".join(kept)


def without(bundle: bytes, dropped: bytes) -> bytes:
    """Return the certificates of a bundle that another bundle does not have.

    Raises:
        KeyPairError: one of the bundles is not PEM.
    """
    gone = set(certificates(dropped))
    return b"".join(
        certificate.public_bytes(Encoding.PEM)
        for certificate in certificates(bundle)
        if certificate not in gone
    )


def same(first: bytes, second: bytes) -> bool:
    """Return whether two bundles have the same certificates, in any order and encoding.

    Raises:
        KeyPairError: one of the bundles is not PEM.
    """
    return set(certificates(first)) == set(certificates(second))


def issuer_of(chain: bytes, bundle: bytes) -> x509.Certificate | None:
    """Return the certificate of a bundle that signed the last one of a chain; None if none did.

    Raises:
        KeyPairError: the chain or the bundle cannot be read.
    """
    last = certificates(chain)[-1]
    for candidate in certificates(bundle):
        try:
            last.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return candidate
    return None
