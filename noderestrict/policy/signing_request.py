"""PEM certificate signing requests, read exactly as Kubernetes reads them.

A reader that differs from the signer can be tricked into seeing another name. The sources are
ParseCSR of k8s.io/kubernetes/pkg/apis/certificates, and Go's encoding/pem and crypto/x509.
"""

import base64
import binascii
import re
from typing import TYPE_CHECKING

from noderestrict.errors import NoderestrictError
from noderestrict.policy.hostile import refused_as

if TYPE_CHECKING:
    from cryptography import x509

_UNREADABLE = "holds a CERTIFICATE REQUEST that cannot be read"
_TYPE = b"CERTIFICATE REQUEST"
# No honest request needs more: a kubelet's has one block without headers, and 5 KiB with a key of
# 16,384 bits. But a node can send a million blocks.
_MOST_BLOCKS, _MOST_HEADERS = 100, 100
_LONGEST_DER = 64 * 1024
_BEGIN, _END, _DASHES = b"-----BEGIN ", b"\n-----END ", b"-----"
#: ASN.1 types that Go reads as text, with their allowed characters. Go skips names of other types,
#: which other readers may accept as text.
_TEXT = {
    "UTF8String": re.compile(r".*", re.DOTALL),
    "T61String": re.compile(r".*", re.DOTALL),
    "BMPString": re.compile(r".*", re.DOTALL),
    "IA5String": re.compile(r"[\x00-\x7f]*"),
    "NumericString": re.compile(r"[0-9 ]*"),
    "PrintableString": re.compile(r"[A-Za-z0-9 '()+,./:=?*&-]*"),
}


class UnreadableRequestError(NoderestrictError, ValueError):
    """There is no readable CERTIFICATE REQUEST; the message never shows its content."""


def csr_common_name(pem: bytes) -> str:
    """Return the last common name of the first PEM block, "" for none.

    Raises:
        UnreadableRequestError: there is no readable CERTIFICATE REQUEST.
    """
    from cryptography import x509

    found = ""
    with refused_as(UnreadableRequestError, _UNREADABLE, why=False):
        names = _first_csr(pem).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        for name in names:
            # No public API returns the ASN.1 type of a name.
            form = _TEXT.get(name._type.name)  # noqa: SLF001
            if form is not None:
                found = str(name.value)
                if not form.fullmatch(found):
                    raise UnreadableRequestError(_UNREADABLE)
    return found


def csr_alternative_names(pem: bytes) -> list[str]:
    """Return the subject alternative names of the first PEM block: DNS names, IP addresses.

    A name of another type is returned as its type and value, which equals no address.

    Raises:
        UnreadableRequestError: there is no readable CERTIFICATE REQUEST.
    """
    from cryptography import x509

    with refused_as(UnreadableRequestError, _UNREADABLE, why=False):
        try:
            extensions = _first_csr(pem).extensions
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return []
        return [
            str(name.value)
            if isinstance(name, x509.DNSName | x509.IPAddress)
            else f"{type(name).__name__} {name.value}"
            for name in names
        ]


def _first_csr(pem: bytes) -> "x509.CertificateSigningRequest":
    # Imported here, because it is half of the start-up time of commands that never see a CSR.
    from cryptography import x509

    block = first_block(pem)
    if block is None or block[0] != _TYPE:
        raise UnreadableRequestError("holds no PEM block of type CERTIFICATE REQUEST")
    if len(block[1]) > _LONGEST_DER:
        raise UnreadableRequestError(f"holds a request of over {_LONGEST_DER} bytes")
    return x509.load_der_x509_csr(block[1])


def first_block(pem: bytes) -> tuple[bytes, bytes] | None:
    """Return the type and the content of the first PEM block; None if there is none.

    A block lies between an END line and the last BEGIN line before it. Text before it and headers
    in it are skipped. After an invalid block the search continues at its END line, up to a fixed
    number of blocks. The time is linear in the length of the text.

    Args:
        pem: text.
    """
    start = 0
    for _ in range(_MOST_BLOCKS):
        end = pem.find(_END, start)
        if end < 0:
            return None
        before, start = start, end + len(_END)
        begin = pem.rfind(_BEGIN, before, end)
        if begin < 0 or (begin > before and pem[begin - 1 : begin] != b"\n"):
            continue
        line, position = _line(pem, begin + len(_BEGIN))
        if not line.endswith(_DASHES):
            continue
        kind = line.removesuffix(_DASHES)
        headers = 0
        while b":" in (read := _line(pem, position))[0]:
            headers, position = headers + 1, read[1]
            if headers > _MOST_HEADERS:
                return None
        if position >= len(pem) or start < position:
            return None
        if headers and end < position:
            continue
        trailer = kind + _DASHES
        rest, _ = _line(pem, start + len(trailer))
        if pem[start : start + len(trailer)] != trailer or rest:
            continue
        try:
            return kind, _decoded(pem[position:end])
        except binascii.Error:
            continue
    return None


def _line(pem: bytes, start: int) -> tuple[bytes, int]:
    """Return a line without its end and trailing space, and the start of the next line."""
    newline = pem.find(b"\n", start)
    if newline < 0:
        return pem[start:].rstrip(b" \t"), len(pem)
    line = pem[start:newline]
    return line.removesuffix(b"\r").rstrip(b" \t"), newline + 1


def _decoded(body: bytes) -> bytes:
    """Decode base64 like Go, which requires complete groups of four."""
    text = body.translate(None, b" \t\r\n")
    if len(text) % 4 or text.endswith(b"==="):
        raise binascii.Error
    return base64.b64decode(text, validate=True)
