"""Judge a certificate chain and its key as a Go client would, such as the API server.

There is one verdict for ``serve``, ``certs check`` and ``doctor``: a chain that Go clients accept
is served, with a warning about whatever is odd in it, and no other.
"""

import datetime as dt
import ipaddress
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from noderestrict.pki.parsed import PUBLIC, Parsed, parse
from noderestrict.pki.parsed import KeyPairError as KeyPairError  # where others expect it
from noderestrict.pki.path import issuing_path, validity_problem, verified_path
from noderestrict.pki.pem import Block, certificate_blocks, key_block, seems_to_have
from noderestrict.policy.hostile import refused_as
from noderestrict.policy.text import printable

_KEY_TYPES = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
_SIGNED = b"noderestrict"
#: In bits: shorter keys are no longer thought to be safe.
_SHORT_RSA = 2048
_HOST_CHARACTERS = frozenset(string.ascii_lowercase + string.digits + "-_")
_CERTIFICATE = b"CERTIFICATE"
#: Of those in a message, and the longest DNS name that there is.
_MOST_NAMES, _LONGEST_NAME = 20, 253


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A judged chain.

    Attributes:
        not_before: from when on the leaf is valid; of two pairs, the later one is newer.
        not_after: when the leaf expires.
        chain_not_after: when the first certificate that leads from the leaf to its CA expires;
            those that have expired already do not count.
        names: DNS names and IP addresses of the leaf.
        serial: of the leaf, in hexadecimal.
        warnings: what is odd about the chain without harming Go clients.
        chain: PEM, what to serve: without what would end the handshake.
        key: PEM, b"" if only a chain was judged.
    """

    not_before: dt.datetime
    not_after: dt.datetime
    chain_not_after: dt.datetime
    names: tuple[str, ...]
    serial: str
    warnings: tuple[str, ...] = ()
    chain: bytes = b""
    key: bytes = field(default=b"", repr=False)


def check_pair(
    certificate: bytes,
    key: bytes,
    *,
    now: dt.datetime,
    dns_names: Sequence[str] = (),
    roots: bytes | None = None,
) -> KeyPair:
    """Check a PEM chain (leaf first) and its PEM key (PKCS#8, PKCS#1 or SEC1).

    Args:
        certificate: the chain.
        key: RSA, ECDSA or Ed25519, unencrypted.
        now: an aware time, at which the leaf must be valid.
        dns_names: names that the leaf must cover.
        roots: PEM bundle that clients trust; None if it is not known.

    Raises:
        KeyPairError: no Go client would accept the pair.
    """
    with refused_as(KeyPairError, "the certificate cannot be read"):
        if not certificate.strip():
            raise KeyPairError("the certificate is empty")
        found = certificate_blocks(certificate)
        if not found:
            raise KeyPairError("the certificate is not a PEM chain")
        # The key first: it decides whether the leaf is the right one at all.
        leaf = _leaf(found[0].content)
        pem = _checked_key(leaf, key)
        pair = _judged(leaf, [one.content for one in found[1:]], now, dns_names, roots)
    warnings = pair.warnings
    if (lost := seems_to_have(certificate) - len(found)) > 0:
        warnings += (f"{lost} more certificates in the file are not valid PEM",)
    return replace(pair, warnings=warnings, key=pem)


def check_chain(
    chain: Sequence[bytes],
    *,
    now: dt.datetime,
    dns_names: Sequence[str] = (),
    roots: bytes | None = None,
) -> KeyPair:
    """Check a chain of DER certificates, leaf first, such as a server sent.

    Args:
        chain: at least the leaf.
        now: an aware time, at which the leaf must be valid.
        dns_names: names that the leaf must cover.
        roots: PEM bundle that clients trust; None if it is not known.

    Raises:
        KeyPairError: no Go client would accept the chain.
    """
    with refused_as(KeyPairError, "the certificate cannot be read"):
        return _judged(_leaf(chain[0]), chain[1:], now, dns_names, roots)


def trusted(bundle: bytes) -> list[Parsed]:
    """Return the certificates of a CA bundle that Go uses; it ignores the others."""
    found = []
    for block in certificate_blocks(bundle):
        if not block.has_headers:
            try:
                found.append(parse(block.content))
            except KeyPairError:
                continue
    return found


def _leaf(der: bytes) -> Parsed:
    try:
        return parse(der)
    except KeyPairError as error:
        raise KeyPairError(f"the certificate: {error}") from None


def _judged(
    leaf: Parsed,
    others: Sequence[bytes],
    now: dt.datetime,
    dns_names: Sequence[str],
    roots: bytes | None,
) -> KeyPair:
    _check_leaf(leaf, now)
    sent, warnings = _usable(leaf, others)
    path = issuing_path(leaf, sent)
    warnings += _oddities(leaf, sent, path, now)
    missing = [name for name in dns_names if not covers(leaf, name)]
    if missing:
        raise KeyPairError(
            f"the certificate is for {_some(leaf.names)}; it does not cover {', '.join(missing)}"
        )
    if roots is not None:
        path = verified_path(leaf, sent, _roots(roots), now)
    ends = [one.certificate.not_valid_after_utc for one in path]
    return KeyPair(
        leaf.certificate.not_valid_before_utc,
        ends[0],
        min(end for end in ends if end > now),
        leaf.names,
        f"{leaf.certificate.serial_number:x}",
        tuple(warnings),
        b"".join(Block(_CERTIFICATE, one.der).encode() for one in (leaf, *sent)),
    )


def _some(names: Sequence[str]) -> str:
    """Return names that somebody else chose as one short line."""
    shown = [printable(name[:_LONGEST_NAME]) for name in names[:_MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _roots(bundle: bytes) -> list[Parsed]:
    found = trusted(bundle)
    if not found:
        raise KeyPairError("the CA bundle has no certificate that can be read")
    return found


def _check_leaf(leaf: Parsed, now: dt.datetime) -> None:
    if problem := leaf.serving_problem():
        raise KeyPairError(f"the certificate {problem}")
    if not leaf.is_self_issued and (problem := leaf.signature_problem()):
        raise KeyPairError(f"the certificate {problem}")
    if problem := validity_problem(leaf, now):
        raise KeyPairError(f"the certificate {problem}")
    if not leaf.serves:
        raise KeyPairError("the certificate's extended key usage lacks serverAuth")
    if not leaf.names:
        raise KeyPairError(
            "the certificate has no DNS name and no IP address as subject alternative name; Go "
            "clients ignore its common name"
        )


def _usable(leaf: Parsed, others: Sequence[bytes]) -> tuple[list[Parsed], list[str]]:
    """Return what to send besides the leaf, and why anything is left out."""
    sent: list[Parsed] = []
    seen = {leaf.der}
    warnings = []
    for position, der in enumerate(others, start=2):
        which = f"certificate {position} of the chain"
        try:
            one = parse(der)
        except KeyPairError as error:
            warnings.append(f"{which} is left out: {error}")
            continue
        if one.der in seen:
            warnings.append(f"{which} is repeated")
            continue
        seen.add(one.der)
        problem = one.key_problem()
        if not problem and not one.is_self_issued:
            problem = one.signature_problem()
        if problem:
            warnings.append(f"{which} is left out: it {problem}")
        else:
            sent.append(one)
    return sent, warnings


def _oddities(
    leaf: Parsed, sent: Sequence[Parsed], path: Sequence[Parsed], now: dt.datetime
) -> list[str]:
    found = []
    key = leaf.certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _SHORT_RSA:
        found.append(f"the certificate has a short RSA key, of {key.key_size} bits")
    for one in sent:
        if problem := one.time_problem(now):
            found.append(f"{one} in the chain {problem}")
        if one not in path:
            found.append(f"{one} in the chain did not issue the certificate: it is superfluous")
    order = [leaf, *sent]
    if [order.index(one) for one in path] != sorted(order.index(one) for one in path):
        found.append("the chain is out of order: each certificate should be issued by the next one")
    return found


def _checked_key(leaf: Parsed, key: bytes) -> bytes:
    """Return the key as PEM.

    Raises:
        KeyPairError: it is not the leaf's, or cannot sign.
    """
    if not key.strip():
        raise KeyPairError("the key is empty")
    block = key_block(key)
    if block is None:
        raise KeyPairError("the key is not an unencrypted PEM key")
    # Leave out the library's message, which may quote the key.
    with refused_as(KeyPairError, "the key is not an unencrypted PEM key", why=False):
        # The full check of an RSA key blocks the process for up to 300 ms; a signature is enough.
        private = serialization.load_pem_private_key(
            block.encode(), None, unsafe_skip_rsa_key_validation=True
        )
    if not isinstance(private, _KEY_TYPES):
        raise KeyPairError("the key is neither RSA, ECDSA nor Ed25519")
    if private.public_key().public_bytes(*PUBLIC) != leaf.public_key:
        raise KeyPairError("the key does not belong to the first certificate")
    damaged = "the key is damaged: its certificate does not verify what it signs"
    with refused_as(KeyPairError, damaged, why=False):
        _sign_and_verify(private, leaf.certificate.public_key())
    return block.encode()


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


def covers(leaf: Parsed, name: str) -> bool:
    """Return whether a certificate is for a host name or an IP address, as Go matches them."""
    try:
        return ipaddress.ip_address(name.strip("[]")) in leaf.addresses
    except ValueError:
        pass
    wanted = _lower(name)
    return any(
        _matches(_lower(pattern), wanted.removesuffix("."))
        if _is_host(wanted.removesuffix(".")) and _is_host(_lower(pattern), pattern=True)
        else _lower(pattern) == wanted and wanted not in ("", ".")
        for pattern in leaf.dns_names
    )


def _lower(text: str) -> str:
    # ASCII only: other letters are equal only to themselves.
    return text.translate({code: code + 32 for code in range(ord("A"), ord("Z") + 1)})


def _matches(pattern: str, host: str) -> bool:
    first, *rest = pattern.split(".")
    host_first, *host_rest = host.split(".")
    return rest == host_rest and first in ("*", host_first)


def _is_host(text: str, *, pattern: bool = False) -> bool:
    if text == "*":
        return False
    return all(
        (pattern and position == 0 and label == "*")
        or (bool(label) and label[0] != "-" and _HOST_CHARACTERS.issuperset(label))
        for position, label in enumerate(text.split("."))
    )
