"""PEM as Go's ``encoding/pem`` reads it, because Go clients read CA bundles.

A BEGIN line starts a line, an END line has nothing after it, and whatever is between blocks is
ignored. So files that were glued together without a line break lose the blocks on both sides.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(
    rb"(?:\A|(?<=\n))-----BEGIN (?P<label>[^\n]*?)-----[ \t]*\r?\n"
    rb"(?P<body>(?:(?!-----BEGIN |\n-----END ).)*)"
    rb"\n-----END (?P=label)-----[ \t]*\r?(?:\n|\Z)",
    re.DOTALL,
)
_CERTIFICATE = b"CERTIFICATE"
_KEY = b"PRIVATE KEY"
_SPACE = re.compile(rb"[ \t\r\n]")


@dataclass(frozen=True, slots=True)
class Block:
    """One block.

    Attributes:
        label: such as CERTIFICATE.
        content: decoded.
        has_headers: whether lines such as ``Proc-Type: 4,ENCRYPTED`` precede the content.
    """

    label: bytes
    content: bytes
    has_headers: bool = False

    def encode(self) -> bytes:
        """Return the block as PEM, without headers."""
        text = base64.b64encode(self.content)
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        begin, end = b"-----BEGIN %b-----" % self.label, b"-----END %b-----" % self.label
        return b"\n".join((begin, *lines, end, b""))


def blocks(data: bytes) -> Iterator[Block]:
    """Yield the blocks of a file."""
    for match in _BLOCK.finditer(data):
        lines = match["body"].split(b"\n")
        start = next((at for at, line in enumerate(lines) if b":" not in line), len(lines))
        text = _SPACE.sub(b"", b"".join(lines[start:]))
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        yield Block(match["label"], content, has_headers=start > 0)


def certificate_blocks(data: bytes) -> list[Block]:
    """Return the certificates of a chain or a bundle."""
    return [block for block in blocks(data) if block.label == _CERTIFICATE]


def key_block(data: bytes) -> Block | None:
    """Return the first private key of a file; None if there is none."""
    return next((block for block in blocks(data) if block.label.endswith(_KEY)), None)


def seems_to_have(data: bytes) -> int:
    """Return how many certificates somebody tried to put into a file."""
    return data.count(b"-----BEGIN CERTIFICATE-----")
