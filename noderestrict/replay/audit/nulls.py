"""Take a null for a member that is missing, as Go does."""

from typing import TypeVar

import msgspec

#: Objects of the cluster, in which it can make a difference.
_BODIES = frozenset({"requestObject", "responseObject", "request", "response"})

_T = TypeVar("_T")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(raw: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Return decoded JSON, of which logged bodies keep their nulls.

    Args:
        raw: JSON of an object.
        decoder: of members that may be missing.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it cannot be decoded.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        # Few pipelines write nulls, so nobody else pays for them.
        return decoder.decode(_without_nulls(raw))


def _without_nulls(raw: bytes) -> bytes:
    kept = {}
    for name, value in _members.decode(raw).items():
        member = bytes(value)
        if member[:1] == b"{" and name not in _BODIES:
            kept[name] = msgspec.Raw(_without_nulls(member))
        elif member != b"null":
            kept[name] = value
    return msgspec.json.encode(kept)
