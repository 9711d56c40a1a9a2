"""A stored CA signs only while callers would trust what it signs."""

import datetime as dt

import pytest

from noderestrict.pki.check import KeyPairError
from noderestrict.pki.issue import create_authority, load_authority
from tests.serving.tls import odd_certificates

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
CA = create_authority("ca", lifetime=DAY, now=NOW)


def load(certificate: bytes, key: bytes, now: dt.datetime = NOW) -> bytes:
    return load_authority(certificate, key, now).certificate


def test_a_ca_signs_while_it_is_valid() -> None:
    assert load(CA.certificate, CA.key) == CA.certificate
    with pytest.raises(KeyPairError, match="expired at 2026-01-02"):
        load(CA.certificate, CA.key, NOW + DAY)
    with pytest.raises(KeyPairError, match="not valid before"):
        load(CA.certificate, CA.key, NOW - DAY)


def test_a_ca_needs_its_own_key() -> None:
    with pytest.raises(KeyPairError, match="does not belong to its certificate"):
        load(CA.certificate, create_authority("other", lifetime=DAY, now=NOW).key)


@pytest.mark.parametrize("odd", list(odd_certificates()), ids=lambda odd: str(odd[0]))
def test_what_a_library_chokes_on_is_not_a_ca(odd: tuple[str, bytes, bytes]) -> None:
    _, certificate, key = odd
    with pytest.raises(KeyPairError):
        load(certificate, key)
