"""Quantities by value: k8s.io/apimachinery/pkg/api/resource."""

import re
from fractions import Fraction

_FORM = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]+))?",
    re.ASCII,
)
_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{suffix: Fraction(10 ** (3 * power)) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}
_LARGEST = Fraction(2**63 - 1)
_SMALLEST_STEP = Fraction(1, 10**9)
# Go parses the exponent with 32 bits; far smaller ones already saturate, and a larger
# power of ten would only cost time.
_EXPONENT_BOUND = 100
_LONGEST = 256


def parse_quantity(text: object) -> Fraction:
    """Return the value of a quantity such as ``1Gi``, ``1024Mi``, ``100m`` or ``1e3``.

    A JSON number is read as its text, null as zero, and space around it is skipped. As in
    Kubernetes, fractions are rounded up to whole billionths, away from zero, and values are capped
    at 2**63 - 1.

    Raises:
        ValueError: the value is no quantity.
    """
    if text is None:
        return Fraction(0)
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{text!r} is no quantity")  # noqa: TRY004 (bad input, whatever its type)
    literal = str(text).strip()
    match = _FORM.fullmatch(literal) if len(literal) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{literal[:40]!r} is no quantity")
    value = Fraction(match["number"])
    if match["suffix"]:
        value *= _SUFFIXES[match["suffix"]]
    elif match["exponent"]:
        exponent = int(match["exponent"])
        bounded = max(-_EXPONENT_BOUND, min(_EXPONENT_BOUND, exponent))
        value *= Fraction(10) ** bounded
    value = min(_round_up(value), _LARGEST)
    return -value if match["sign"] == "-" else value


def _round_up(value: Fraction) -> Fraction:
    return -(-value // _SMALLEST_STEP) * _SMALLEST_STEP
