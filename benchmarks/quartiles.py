"""The median and the quartiles of repeated measurements."""

import statistics
from collections.abc import Sequence


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Return median, first and third quartile."""
    q1, median, q3 = statistics.quantiles(values, n=4)
    return {"median": median, "q1": q1, "q3": q3}


def in_words(found: dict[str, float], digits: int = 2) -> str:
    """Return the median and, in brackets, the quartiles.

    >>> in_words({"median": 1.0, "q1": 0.9, "q3": 1.25})
    '1.00 (0.90-1.25)'
    """
    median, q1, q3 = (f"{found[name]:.{digits}f}" for name in ("median", "q1", "q3"))
    return f"{median} ({q1}-{q3})"
