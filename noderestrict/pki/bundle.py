"""CA bundles: several certificates in PEM."""

import datetime as dt

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from noderestrict.pki.check import KeyPairError, trusted


def certificates(bundle: bytes) -> list[x509.Certificate]:
    """Return the certificates of a bundle that the API server uses; [] for an empty one.

    Raises:
        KeyPairError: it uses none of a bundle that is not empty.
    """
    found = [one.certificate for one in trusted(bundle)]
    if bundle.strip() and not found:
        raise KeyPairError("the CA bundle has no certificate that can be read")
    return found


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
    """Return the certificate of a bundle that a chain leads to, expired or not; None if none.

    Raises:
        KeyPairError: the bundle cannot be read.
    """
    candidates = certificates(bundle)
    for link in (one.certificate for one in trusted(chain)):
        for candidate in candidates:
            if link == candidate:
                return candidate
            try:
                link.verify_directly_issued_by(candidate)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                continue
            return candidate
    return None
