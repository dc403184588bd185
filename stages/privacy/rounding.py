"""Numbers that are claims: what is written never promises more than what was found."""

from decimal import ROUND_CEILING, Decimal


def rounded_up(value: float, places: int = 3) -> str:
    """Return a number in decimal digits, never below it.

    >>> rounded_up(2.0001), rounded_up(8.0)
    ('2.001', '8.000')
    """
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-places), ROUND_CEILING))
