"""PEM blocks as Go's encoding/pem finds them: each case was tried there."""

import pytest

from noderestrict.policy.signing_request import first_block

A = b"-----BEGIN A-----\nQUJD\n-----END A-----\n"


@pytest.mark.parametrize(
    ("pem", "block"),
    [
        (A, (b"A", b"ABC")),
        (A.replace(b"\n", b"\r\n"), (b"A", b"ABC")),
        (A.rstrip(), (b"A", b"ABC")),
        (b"a note\n" + A, (b"A", b"ABC")),
        (A + A.replace(b"A-", b"B-"), (b"A", b"ABC")),
        (b"-----BEGIN A-----\nname: value\n\nQUJD\n-----END A-----\n", (b"A", b"ABC")),
        (b"-----BEGIN A-----\n-----END A-----\n", (b"A", b"")),
        # A BEGIN line without an END line of its own is text.
        (b"-----BEGIN B-----\n" + A, (b"A", b"ABC")),
        # A block that is none does not end the search.
        (b"-----BEGIN B-----\nQUJD\n-----END C-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJ\n-----END B-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJDRA=\n-----END B-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJD====\n-----END B-----\n" + A, (b"A", b"ABC")),
        (b"-----BEGIN B-----\nQUJD\n-----END B----- x\n" + A, (b"A", b"ABC")),
        (b"x" + A, None),
        (A.replace(b"QUJD", b"Q\x0bUJD"), None),
        (b"-----BEGIN A-----\na: b\n", None),
        (b"", None),
    ],
)
def test_the_first_block_is_found(pem: bytes, block: tuple[bytes, bytes] | None) -> None:
    assert first_block(pem) == block


def test_text_that_never_ends_a_block_is_read_in_one_pass() -> None:
    class Counted(bytes):
        read = 0

        def find(self, *arguments: object) -> int:
            Counted.read += 1
            return super().find(*arguments)  # type: ignore[arg-type]

    assert first_block(Counted(b"-----BEGIN A-----\n" * 10_000)) is None
    assert Counted.read == 1
