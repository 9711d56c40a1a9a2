"""CA bundles while a CA is replaced."""

import pytest

from noderestrict.pki.bundle import certificates, issuer_of, joined
from noderestrict.pki.check import KeyPairError
from tests.serving.tls import DAY, NOW, authority, leaf


def test_a_joined_bundle_has_each_certificate_once_and_no_expired_one() -> None:
    old, new = authority(), authority()
    both = joined(old.certificate, new.certificate, NOW)
    assert len(certificates(both)) == 2
    assert joined(both, new.certificate, NOW) == both
    assert joined(b"", new.certificate, NOW) == new.certificate
    assert joined(both, b"", NOW + 60 * DAY) == b""


def test_the_issuer_is_found_by_its_signature() -> None:
    old, new = authority(), authority()
    chain = leaf(new).certificate
    assert issuer_of(chain, old.certificate) is None
    found = issuer_of(chain, old.certificate + new.certificate)
    assert found == certificates(new.certificate)[0]
    assert issuer_of(chain, b"") is None


def test_what_is_no_bundle_is_told() -> None:
    with pytest.raises(KeyPairError, match="CA bundle"):
        certificates(b"nothing")
