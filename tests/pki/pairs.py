"""Certificate pairs of every kind, with what becomes of each.

Go's verdict on each is recorded in go_verdicts.json; ``python -m tests.pki.pairs`` records it anew.
"""

import atexit
import base64
import datetime as dt
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.serving.tls import DAY, NOW, odd_certificates

Key = Any
HERE = Path(__file__).parent
RECORDED = HERE / "go_verdicts.json"
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
HOST = "localhost"


class Pair(Enum):
    """What becomes of a pair, whatever clients trust."""

    GOOD = "served"
    ODD = "served with a warning"
    BAD = "refused"


@dataclass(frozen=True)
class Case:
    """A pair and who calls.

    Attributes:
        name: of the case.
        chain: PEM.
        key: PEM.
        roots: PEM, what the client trusts; b"" for the roots of its system.
        pair: what becomes of it.
        accepted: whether a client that trusts the roots accepts it.
        host: what the client calls.
        mended: whether Go refuses the chain as it is, but not as it is served.
    """

    name: str
    chain: bytes
    key: bytes
    roots: bytes
    pair: Pair
    accepted: bool
    host: str = HOST
    mended: bool = False


@cache
def key(kind: str = "p256") -> Key:
    """Return the key of a kind; a second one of it if the kind ends with an apostrophe."""
    makers: Mapping[str, Callable[[], Key]] = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p224": lambda: ec.generate_private_key(ec.SECP224R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
        "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
        "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
        "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
        "dsa": lambda: dsa.generate_private_key(2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ed448": ed448.Ed448PrivateKey.generate,
    }
    return makers[kind.rstrip("'")]()


def pem_of(
    private: Key, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8
) -> bytes:
    encoded: bytes = private.private_bytes(PEM, form, serialization.NoEncryption())
    return encoded


def name_of(text: str, kind: Any = None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, kind)])


def dns(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def usage(*, sign: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=sign, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


Extension = tuple[x509.ExtensionType, bool]
CA_EXTENSIONS: tuple[Extension, ...] = (
    (x509.BasicConstraints(ca=True, path_length=None), True),
    (usage(), True),
)
NO_CA = x509.BasicConstraints(ca=False, path_length=None)
LEAF_EXTENSIONS: tuple[Extension, ...] = (
    (dns(HOST), False),
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key.

    Attributes:
        certificate: as the library has it.
        private: the key.
    """

    certificate: x509.Certificate
    private: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def key(self) -> bytes:
        return pem_of(self.private)

    def issue(self, subject: str = "leaf", **options: Any) -> "Certificate":
        return make(subject, issuer=self, **options)


def make(
    subject: str,
    *,
    issuer: Certificate | None = None,
    kind: str = "p256",
    extensions: Iterable[Extension] = LEAF_EXTENSIONS,
    begin: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + 60 * DAY,
    issuer_name: x509.Name | None = None,
    serial: int | None = None,
) -> Certificate:
    """Return a certificate, signed by an issuer or by itself."""
    own = key(kind)
    signing = own if issuer is None else issuer.private
    by = name_of(subject) if issuer is None else issuer.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(issuer_name or by)
        .public_key(own.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    plain = isinstance(signing, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    signed = builder.sign(signing, None if plain else hashes.SHA256())
    return Certificate(signed, own)


def authority(subject: str = "root", **options: Any) -> Certificate:
    return make(subject, **{"kind": "p384", "extensions": CA_EXTENSIONS, **options})


def with_names(*names: x509.GeneralName, critical: bool = False) -> tuple[Extension, ...]:
    return ((x509.SubjectAlternativeName(names), critical), LEAF_EXTENSIONS[1])


def changed(certificate: Certificate, old: bytes, new: bytes, times: int = 1) -> bytes:
    """Return a certificate as PEM in which some bytes differ; its signature no longer fits."""
    der = certificate.certificate.public_bytes(DER)
    assert der.count(old) >= times
    text = base64.encodebytes(der.replace(old, new, times))
    return b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"


def with_sha1(certificate: Certificate) -> bytes:
    """Return a certificate, signed with RSA, that says it is signed with SHA-1."""
    algorithm = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01"
    return changed(certificate, algorithm + b"\x0b", algorithm + b"\x05", 2)


ROOT = authority()
OTHER = authority("other", kind="p384'")
INTERMEDIATE = ROOT.issue("intermediate", kind="p521", extensions=CA_EXTENSIONS)
EXPIRED: dict[str, Any] = {"begin": NOW - 3 * DAY, "end": NOW - DAY}
FUTURE: dict[str, Any] = {"begin": NOW + DAY, "end": NOW + 60 * DAY}
GOOD, ODD, BAD = Pair


def cases() -> Iterator[Case]:
    """Yield every case."""
    yield from _keys()
    yield from _chains()
    yield from _leaves()
    yield from _files()
    yield from _trust()
    yield from _hosts()
    for what, chain, private in odd_certificates():
        roots = ROOT.pem
        yield Case(f"odd: {what}", chain, private, roots, BAD, accepted=False)


def _leaf(name: str, leaf: Certificate, pair: Pair = GOOD, **options: Any) -> Case:
    given = {"accepted": pair is not BAD, "chain": leaf.pem, "key": leaf.key, "roots": ROOT.pem}
    return Case(name=name, pair=pair, **{**given, **options})


def _keys() -> Iterator[Case]:
    for kind in ("p256", "p384", "p521", "ed25519", "rsa2048", "rsa3072"):
        yield _leaf(f"key {kind}", ROOT.issue(kind=kind))
    yield _leaf("key rsa1024", ROOT.issue(kind="rsa1024"), ODD)
    for kind in ("p224", "secp256k1", "brainpool", "ed448", "dsa"):
        yield _leaf(f"key {kind}", ROOT.issue(kind=kind), BAD)
    old = serialization.PrivateFormat.TraditionalOpenSSL
    for kind in ("p256", "rsa2048"):
        yield _leaf(
            f"key {kind} in its old form", ROOT.issue(kind=kind), key=pem_of(key(kind), old)
        )
    for kind in ("rsa2048", "rsa1024", "ed25519", "p224"):
        ca = authority(f"ca {kind}", kind=kind)
        yield _leaf(f"CA with key {kind}", ca.issue(kind="p256'"), roots=ca.pem)
    pss = changed(
        ROOT.issue(kind="rsa2048"),
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a",
    )
    yield _leaf("key RSASSA-PSS", ROOT.issue(kind="rsa2048"), BAD, chain=pss, roots=pss)


def _chains() -> Iterator[Case]:
    leaf = INTERMEDIATE.issue()
    middle, root, other = INTERMEDIATE.pem, ROOT.pem, OTHER.pem
    yield _leaf("chain", leaf, chain=leaf.pem + middle)
    yield _leaf("chain with its root", leaf, chain=leaf.pem + middle + root)
    yield _leaf("chain with a superfluous root", leaf, ODD, chain=leaf.pem + middle + other)
    yield _leaf("superfluous first", leaf, ODD, chain=leaf.pem + other + middle)
    yield _leaf("chain out of order", leaf, ODD, chain=leaf.pem + root + middle)
    yield _leaf("leaf twice", leaf, ODD, chain=leaf.pem * 2 + middle)
    yield _leaf("intermediate twice", leaf, ODD, chain=leaf.pem + middle * 2)
    yield _leaf("everything twice", leaf, ODD, chain=(leaf.pem + middle + root) * 2)
    another = ROOT.issue()
    yield _leaf("superfluous leaf", leaf, ODD, chain=leaf.pem + another.pem + middle)
    for what, times in (("expired", EXPIRED), ("future", FUTURE)):
        useless = authority("useless", **times)
        yield _leaf(f"{what} superfluous", leaf, ODD, chain=leaf.pem + middle + useless.pem)
        same = ROOT.issue("intermediate", kind="p521", extensions=CA_EXTENSIONS, **times)
        yield _leaf(f"{what} twin first", leaf, ODD, chain=leaf.pem + same.pem + middle)
        yield _leaf(f"{what} twin last", leaf, ODD, chain=leaf.pem + middle + same.pem)
        yield _leaf(f"{what} twin of a trusted one", leaf, ODD,
                    chain=leaf.pem + same.pem, roots=middle)  # fmt: skip
        yield _leaf(f"{what} intermediate", leaf, ODD, chain=leaf.pem + same.pem, accepted=False)
    yield _leaf("superfluous with a short key", leaf, ODD,
                chain=leaf.pem + middle + authority("short", kind="rsa1024").pem)  # fmt: skip
    by_rsa = authority("by RSA", kind="rsa2048")
    weak = with_sha1(by_rsa.issue("weak", extensions=CA_EXTENSIONS))
    yield _leaf("superfluous signed with SHA-1", leaf, ODD, chain=leaf.pem + middle + weak)
    for kind in ("secp256k1", "brainpool", "ed448", "dsa"):
        strange = OTHER.issue("strange", kind=kind, extensions=CA_EXTENSIONS)
        yield _leaf(f"superfluous with key {kind}", leaf, ODD,
                    chain=leaf.pem + middle + strange.pem,
                    mended=kind in ("secp256k1", "brainpool"))  # fmt: skip
    yield _leaf("intermediate missing", leaf, accepted=False)


def _leaves() -> Iterator[Case]:
    yield _leaf("expired", ROOT.issue(**EXPIRED), BAD)
    yield _leaf("not yet valid", ROOT.issue(**FUTURE), BAD)
    yield _leaf("no SAN", ROOT.issue(HOST, extensions=LEAF_EXTENSIONS[1:]), BAD)
    yield _leaf("SAN of mail", ROOT.issue(extensions=with_names(x509.RFC822Name("a@b.c"))), BAD)
    directory = x509.DirectoryName(name_of(HOST))
    yield _leaf("SAN of directory", ROOT.issue(extensions=with_names(directory)), BAD)
    both = with_names(
        x509.DNSName(HOST), directory, x509.RegisteredID(x509.ObjectIdentifier("1.2"))
    )
    yield _leaf("SAN of many kinds", ROOT.issue(extensions=both))
    yield _leaf(
        "SAN critical", ROOT.issue(extensions=with_names(x509.DNSName(HOST), critical=True))
    )
    for what, oid, pair in (
        ("clients", ExtendedKeyUsageOID.CLIENT_AUTH, BAD),
        ("any", ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, GOOD),
        ("something unknown", x509.ObjectIdentifier("1.2.3.4"), BAD),
    ):
        limited = (LEAF_EXTENSIONS[0], (x509.ExtendedKeyUsage([oid]), False))
        yield _leaf(f"usage for {what}", ROOT.issue(extensions=limited), pair)
    yield _leaf("usage for nothing said", ROOT.issue(extensions=LEAF_EXTENSIONS[:1]))
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for critical, pair in ((True, BAD), (False, GOOD)):
        extensions = (*LEAF_EXTENSIONS, (unknown, critical))
        name = f"unknown extension{', critical' if critical else ''}"
        yield _leaf(name, ROOT.issue(extensions=extensions), pair)
    marked = (x509.SubjectKeyIdentifier(b"1234"), True)
    leaf = ROOT.issue(extensions=(*LEAF_EXTENSIONS, marked))
    yield _leaf("critical key identifier", leaf, BAD)
    yield _leaf("leaf that is a CA", ROOT.issue(extensions=(*LEAF_EXTENSIONS, *CA_EXTENSIONS)))
    signed = ROOT.issue(extensions=(*LEAF_EXTENSIONS, (usage(sign=True), True)))
    yield _leaf("usage of the key for certificates", signed)
    by_rsa = authority("by RSA", kind="rsa2048")
    weak = by_rsa.issue()
    yield _leaf("signed with SHA-1", weak, BAD, chain=with_sha1(weak), roots=by_rsa.pem)
    negative = ROOT.issue(serial=0x7A7A7A7A7A7A7A7A)
    text = changed(negative, b"\x02\x08" + b"\x7a" * 8, b"\x02\x08" + b"\xfa" * 8)
    yield _leaf("negative serial number", negative, BAD, chain=text, roots=text)


def _files() -> Iterator[Case]:
    leaf = INTERMEDIATE.issue()
    middle = INTERMEDIATE.pem
    good = leaf.pem + middle
    yield _leaf("text between", leaf, chain=b"leaf:\n" + leaf.pem + b"\nissuer:\n" + middle + b"\n")
    yield _leaf("CRLF", leaf, chain=good.replace(b"\n", b"\r\n"))
    yield _leaf("spaces at the end of lines", leaf, chain=good.replace(b"\n", b" \n"))
    yield _leaf("no line break at the end", leaf, chain=good.rstrip(), key=leaf.key.rstrip())
    yield _leaf("chain and key in both files", leaf, chain=leaf.key + good, key=good + leaf.key)
    curve = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    old = pem_of(leaf.private, serialization.PrivateFormat.TraditionalOpenSSL)
    yield _leaf("parameters before the key", leaf, chain=good, key=curve + old)
    yield _leaf("another key after the key", leaf, chain=good, key=leaf.key + OTHER.key)
    yield _leaf("another key before the key", leaf, BAD, chain=good, key=OTHER.key + leaf.key)
    yield _leaf("headers", leaf, chain=good.replace(b"-----\nMI", b"-----\nA: b\n\nMI", 1))
    yield _leaf("glued leaf", leaf, BAD, chain=leaf.pem.rstrip() + middle)
    single = ROOT.issue()
    yield _leaf("glued after the leaf", single, ODD,
                chain=single.pem + middle.rstrip() + ROOT.pem)  # fmt: skip
    yield _leaf("glued needed", leaf, ODD, chain=leaf.pem + middle.rstrip() + ROOT.pem,
                accepted=False)  # fmt: skip
    yield _leaf("glued key", leaf, BAD, chain=good, key=good.rstrip() + leaf.key)
    yield _leaf("text before BEGIN", leaf, BAD, chain=b" " + leaf.pem)
    yield _leaf("bad base64", leaf, BAD, chain=good.replace(b"MII", b"M!I", 1))
    yield _leaf("empty certificate", leaf, BAD, chain=b"")
    yield _leaf("empty key", leaf, BAD, key=b"")
    yield _leaf("key and certificate swapped", leaf, BAD, chain=leaf.key, key=leaf.pem)
    yield _leaf("key of another", leaf, BAD, key=OTHER.key)
    yield _leaf("chain in reverse", leaf, BAD, chain=middle + leaf.pem)
    locked = leaf.private.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    yield _leaf("encrypted key", leaf, BAD, key=locked)


def _trust() -> Iterator[Case]:
    leaf, direct = INTERMEDIATE.issue(), ROOT.issue()
    middle = INTERMEDIATE.pem
    yield _leaf("intermediate trusted", leaf, roots=middle)
    yield _leaf("intermediate trusted and sent", leaf, chain=leaf.pem + middle, roots=middle)
    yield _leaf("intermediate trusted, root sent", leaf, chain=leaf.pem + middle + ROOT.pem,
                roots=middle)  # fmt: skip
    own = make("own", extensions=LEAF_EXTENSIONS)
    yield _leaf("leaf trusted", own, roots=own.pem)
    yield _leaf("leaf of a CA trusted", direct, roots=direct.pem)
    yield _leaf("another trusted", direct, roots=OTHER.pem, accepted=False)
    yield _leaf("several trusted", direct, roots=OTHER.pem + ROOT.pem)
    yield _leaf("roots of the system", direct, roots=b"")
    yield _leaf("not by roots of the system", OTHER.issue(), roots=b"", accepted=False)
    yield _leaf("bundle with text", direct, roots=b"CA\n" + OTHER.pem + b"\nCA\n" + ROOT.pem)
    yield _leaf("glued bundle", direct, roots=OTHER.pem.rstrip() + ROOT.pem, accepted=False)
    yield _leaf("bundle with headers", direct, accepted=False,
                roots=ROOT.pem.replace(b"-----\nMI", b"-----\nA: b\n\nMI", 1))  # fmt: skip
    strange = authority("strange", kind="secp256k1")
    yield _leaf("unreadable in the bundle", direct, roots=strange.pem + ROOT.pem)
    for what, options in (
        ("expired", EXPIRED),
        ("future", FUTURE),
        ("without constraints", {"extensions": ()}),
        (
            "that is no CA",
            {"extensions": ((x509.BasicConstraints(ca=False, path_length=None), True),)},
        ),
        ("that may not sign", {"extensions": (CA_EXTENSIONS[0], (usage(sign=False), True))}),
    ):
        ca = authority(f"root {what}", **options)
        yield _leaf(f"root {what}", ca.issue(), roots=ca.pem, accepted=False)
        below = ROOT.issue(f"intermediate {what}", **{"extensions": CA_EXTENSIONS, **options})
        of_below = below.issue(kind="p256'")
        yield _leaf(f"intermediate {what}", of_below,
                    ODD, chain=of_below.pem + below.pem,
                    accepted=False)  # fmt: skip
    old = authority("self-signed with SHA-1", kind="rsa2048")
    of_old = old.issue()
    yield _leaf("root signed with SHA-1", of_old, roots=with_sha1(old))
    yield _leaf("root signed with SHA-1 is sent", of_old, roots=with_sha1(old),
                chain=of_old.pem + with_sha1(old))  # fmt: skip
    for length, accepted in ((0, False), (1, True)):
        ca = authority(
            f"root of {length}",
            extensions=(
                (x509.BasicConstraints(ca=True, path_length=length), True),
                (usage(), True),
            ),
        )
        below = ca.issue("below", kind="p521", extensions=CA_EXTENSIONS)
        of_below = below.issue()
        yield _leaf(f"path length {length}", of_below, chain=of_below.pem + below.pem,
                    roots=ca.pem, accepted=accepted)  # fmt: skip
    clients = authority(
        "for clients",
        extensions=(
            *CA_EXTENSIONS,
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        ),
    )
    yield _leaf("root for clients", clients.issue(), roots=clients.pem, accepted=False)
    yield from _constrained()
    named = ROOT.issue(issuer_name=name_of("root", x509.name._ASN1Type.PrintableString))
    yield _leaf("issuer in another encoding", named, accepted=False)
    identifier = x509.AuthorityKeyIdentifier(b"other", None, None)
    yield _leaf("another authority key identifier",
                ROOT.issue(extensions=(*LEAF_EXTENSIONS, (identifier, False))))  # fmt: skip
    cross = OTHER.issue("root", kind="p384", extensions=CA_EXTENSIONS)
    yield _leaf("cross-signed", direct, chain=direct.pem + cross.pem, roots=OTHER.pem)
    yield _leaf("cross-signed, old root trusted", direct, chain=direct.pem + cross.pem)


def _constrained() -> Iterator[Case]:
    def constrained(
        permitted: Sequence[x509.GeneralName] = (), excluded: Sequence[x509.GeneralName] = ()
    ) -> Certificate:
        value = x509.NameConstraints(permitted or None, excluded or None)
        return authority("constrained", extensions=(*CA_EXTENSIONS, (value, True)))

    a, b, any_ = (x509.DNSName(f"{label}.example") for label in ("a", "b", "*"))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    ten, loopback = (
        x509.IPAddress(ipaddress.ip_network(text)) for text in ("10.0.0.0/8", "127.0.0.0/8")
    )
    for name, ca, names, accepted in (
        ("permitted", constrained([a]), [a], True),
        ("permitted above", constrained([x509.DNSName("example")]), [a], True),
        ("permitted below a dot", constrained([x509.DNSName(".example")]), [a], True),
        ("permitted other", constrained([b]), [a], False),
        ("permitted for one of two", constrained([a]), [a, b], False),
        ("excluded", constrained(excluded=[a]), [a], False),
        ("excluded other", constrained(excluded=[b]), [a], True),
        (
            "excluded by a wildcard",
            constrained(excluded=[a]),
            [a, any_],
            False,
        ),
        ("of addresses only", constrained([ten]), [a], True),
        ("address permitted", constrained([loopback]), [a, address], True),
        ("address not permitted", constrained([ten]), [a, address], False),
        ("address excluded", constrained(excluded=[loopback]), [a, address], False),
    ):
        leaf = ca.issue(extensions=with_names(*names))
        yield _leaf(f"constraint: {name}", leaf, roots=ca.pem, host="a.example", accepted=accepted)


def _hosts() -> Iterator[Case]:
    v4, v6 = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")
    addressed = ROOT.issue(
        extensions=with_names(x509.DNSName("a.svc"), x509.IPAddress(v4), x509.IPAddress(v6))
    )
    for host, accepted in (
        ("a.svc", True), ("A.SVC", True), ("a.svc.", True), ("b.a.svc", False), ("svc", False),
        ("127.0.0.1", True), ("127.0.0.2", False), ("::1", True), ("0:0:0:0:0:0:0:1", True),
    ):  # fmt: skip
        yield _leaf(f"host {host}", addressed, host=host, accepted=accepted)
    for pattern, host, accepted in (
        ("*.a.svc", "b.a.svc", True), ("*.a.svc", "a.svc", False), ("*.a.svc", "c.b.a.svc", False),
        ("*.svc", "b.svc", True), ("b*.svc", "bc.svc", False), ("*b.svc", "cb.svc", False),
        ("a.*.svc", "a.b.svc", False), ("*", "localhost", False), ("a_b.svc", "a_b.svc", True),
        ("A.svc", "a.svc", True), ("a.svc.", "a.svc", False), ("[a-z].svc", "b.svc", False),
    ):  # fmt: skip
        leaf = ROOT.issue(extensions=with_names(x509.DNSName(pattern)))
        yield _leaf(f"host {host} of {pattern}", leaf, host=host, accepted=accepted)
    as_name = ROOT.issue(extensions=with_names(x509.DNSName("127.0.0.1")))
    yield _leaf("address as DNS name", as_name, host="127.0.0.1", accepted=False)


def asked(given: Sequence[Case], addresses: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the error of a Go client for each case, "" for an accepted one.

    Args:
        given: the cases.
        addresses: where to call, by the name of the case; a server in Go if there is none.
    """
    values = [
        {
            "Name": case.name,
            **{
                name: base64.b64encode(getattr(case, name.lower())).decode()
                for name in ("Chain", "Key", "Roots")
            },
            "Host": case.host,
            "Address": (addresses or {}).get(case.name, ""),
        }
        for case in given
    ]
    done = subprocess.run(
        ["go", "run", HERE / "go" / "main.go"],
        input=json.dumps(values).encode(),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, **system_roots_of_go()},
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@cache
def system_roots_of_go() -> dict[str, str]:
    """Return the environment in which the root of the cases is the one root of the system."""
    folder = Path(tempfile.mkdtemp(prefix="noderestrict-roots-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "roots.pem").write_bytes(ROOT.pem)
    (folder / "empty").mkdir()
    return {"SSL_CERT_FILE": str(folder / "roots.pem"), "SSL_CERT_DIR": str(folder / "empty")}


def has_go() -> bool:
    return shutil.which("go") is not None


if __name__ == "__main__":
    if not has_go():
        sys.exit("there is no go on the PATH")
    found = asked(list(cases()))
    kept = {name: error.partition(": current time")[0] for name, error in found.items()}
    RECORDED.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    print(f"{RECORDED}: {len(kept)} verdicts")
