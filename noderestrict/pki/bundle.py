"""CA bundles: several certificates, PEM."""

import datetime as dt

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from noderestrict.pki.check import KeyPairError
from noderestrict.policy.hostile import refused_as


def certificates(bundle: bytes) -> list[x509.Certificate]:
    """Return the certificates of a bundle; an empty one has none.

    Raises:
        KeyPairError: it is no PEM.
    """
    if not bundle.strip():
        return []
    with refused_as(KeyPairError, "the CA bundle cannot be read"):
        return x509.load_pem_x509_certificates(bundle)


def joined(first: bytes, second: bytes, now: dt.datetime) -> bytes:
    """Return the certificates of two bundles, each once, without those that have expired.

    Raises:
        KeyPairError: one of them is no PEM.
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
        KeyPairError: one of them is no PEM.
    """
    gone = set(certificates(dropped))
    return b"".join(
        certificate.public_bytes(Encoding.PEM)
        for certificate in certificates(bundle)
        if certificate not in gone
    )


def same(first: bytes, second: bytes) -> bool:
    """Tell whether two bundles have the same certificates, in any order and notation.

    Raises:
        KeyPairError: one of them is no PEM.
    """
    return set(certificates(first)) == set(certificates(second))


def issuer_of(chain: bytes, bundle: bytes) -> x509.Certificate | None:
    """Return the certificate of a bundle that has signed the last of a chain, None if none has.

    Raises:
        KeyPairError: one of them cannot be read.
    """
    last = certificates(chain)[-1]
    for candidate in certificates(bundle):
        try:
            last.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return candidate
    return None
