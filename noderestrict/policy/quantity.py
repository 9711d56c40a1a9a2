"""Quantities by value, as in k8s.io/apimachinery/pkg/api/resource."""

import re

_FORM = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]+))?",
    re.ASCII,
)
# Suffix: factor and power of ten.
_SUFFIXES = {
    "n": (1, -9),
    "u": (1, -6),
    "m": (1, -3),
    **{suffix: (1, 3 * power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": (1024**power, 0) for power, suffix in enumerate("KMGTPE", start=1)},
}
#: Values are counted in billionths.
PER_UNIT = 10**9
_PER_UNIT_DIGITS = 9
_LARGEST = (2**63 - 1) * PER_UNIT
# No quantity that an API server writes has more than 30 characters, or a larger exponent.
_LONGEST = 256
_EXPONENT_BOUND = 2 * _LONGEST


def parse_quantity(text: str) -> int:
    """Return the value, in billionths, of a quantity such as ``1Gi``, ``100m`` or ``1e3``.

    Space around the text is ignored. As in Kubernetes, fractions are rounded up to whole
    billionths, away from zero, and values are capped at 2**63 - 1. Any text takes the time of a
    few multiplications.

    Raises:
        ValueError: the text is not a quantity, or longer than any that an API server writes.
    """
    literal = text.strip()
    match = _FORM.fullmatch(literal) if len(literal) <= _LONGEST else None
    digits = f"{match['whole']}{match['fraction'] or ''}" if match else ""
    if match is None or not digits:
        raise ValueError(f"{literal[:40]!r} is not a quantity")
    factor, power = _SUFFIXES[match["suffix"]] if match["suffix"] else (1, 0)
    if match["exponent"]:
        exponent = int(match["exponent"])
        if abs(exponent) >= 2**63:
            raise ValueError(f"{literal[:40]!r} is not a quantity")
        # Go keeps only 32 bits of the exponent.
        power = (exponent + 2**31) % 2**32 - 2**31
    power += _PER_UNIT_DIGITS - len(match["fraction"] or "")
    value = int(digits) * factor
    scale: int = 10 ** min(abs(power), _EXPONENT_BOUND)
    value = value * scale if power >= 0 else -(-value // scale)
    value = min(value, _LARGEST)
    return -value if match["sign"] == "-" else value
