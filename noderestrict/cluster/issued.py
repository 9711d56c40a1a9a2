"""What a plugin or a provider issues."""

import base64
from dataclasses import dataclass

import msgspec


class _Claims(msgspec.Struct):
    exp: int | float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Issued:
    """A credential that somebody issued.

    Attributes:
        token: bearer token; "" for none.
        pair: client certificate and key in PEM.
        expires: when, in seconds since 1970; None if that is unknown.
    """

    token: str = ""
    pair: tuple[bytes, bytes] | None = None
    expires: float | None = None


def expiry_of(token: str) -> float | None:
    """Return when a JWT expires, in seconds since 1970; None if it does not say, or is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        expires = msgspec.json.decode(claims, type=_Claims).exp
    except (ValueError, RecursionError):
        return None
    return None if expires is None else float(expires)
