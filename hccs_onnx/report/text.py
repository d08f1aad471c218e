"""Numbers as text: fixed places, one minus sign, no negative zero."""

from __future__ import annotations

import math

_MINUS = "\N{MINUS SIGN}"


def fixed(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with so many digits behind the point.

    Examples
    --------
    >>> fixed(0.12345, 3), fixed(-0.00001, 3), fixed(float("inf"), 3), fixed(0.5, 1, signed=True)
    ('0.123', '0.000', '∞', '+0.5')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", _MINUS)


def significant(value: float) -> str:
    """A number with three significant digits.

    Examples
    --------
    >>> significant(0.061234), significant(2.0), significant(1234.5)
    ('0.0612', '2', '1230')
    """
    if not math.isfinite(value) or value == 0:
        return fixed(value, 0)
    digits = 2 - math.floor(math.log10(abs(value)))
    text = f"{round(value, digits):.{max(digits, 0)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", _MINUS)


def percent(value: float) -> str:
    """A share as a percentage.

    Examples
    --------
    >>> percent(0.98667)
    '98.7%'
    """
    return f"{fixed(100 * value, 1)}%"


def count(value: int) -> str:
    """A whole number with its thousands apart.

    Examples
    --------
    >>> count(2189)
    '2,189'
    """
    return f"{value:,}"


def heat(value: float, most: float) -> int:
    """Percentage of the full colour, 0..100: `value` as a share of `most`.

    Examples
    --------
    >>> heat(0.1, 0.4), heat(float("inf"), 0.4)
    (25, 100)
    """
    share = value / most if most > 0 else 0.0
    return 100 if not share <= 1 else max(0, round(100 * share))


FILTERS = {"fixed": fixed, "significant": significant, "percent": percent, "count": count, "heat": heat}
"""For templates, by name."""
