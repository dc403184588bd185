"""Refuse to price what would keep an accountant busy for ever: numbers that no run of ours has."""

import dp_accounting

LEAST_NOISE = 0.05
"""A plan has at least 0.3; one sum under a twentieth has an epsilon over 200."""
MOST_TIMES = 100_000_000


def require_priceable(event: dp_accounting.DpEvent) -> None:
    """Refuse noise below ``LEAST_NOISE`` other than none at all, and more than ``MOST_TIMES`` repetitions.

    >>> require_priceable(dp_accounting.GaussianDpEvent(1e-9))
    Traceback (most recent call last):
    ValueError: a noise multiplier of 1e-09 is below 0.05, where accountants take for ever
    """
    _require(event, 1)


def _require(event: dp_accounting.DpEvent, times: int) -> None:
    if times > MOST_TIMES:
        raise ValueError(
            f"an event of {times} repetitions is over {MOST_TIMES}, where nobody waits for a price"
        )
    if isinstance(event, dp_accounting.GaussianDpEvent | dp_accounting.LaplaceDpEvent):
        if 0 < event.noise_multiplier < LEAST_NOISE:
            raise ValueError(
                f"a noise multiplier of {event.noise_multiplier!r} is below {LEAST_NOISE}, where accountants "
                "take for ever"
            )
    elif isinstance(event, dp_accounting.ComposedDpEvent):
        for part in event.events:
            _require(part, times)
    elif isinstance(event, dp_accounting.SelfComposedDpEvent):
        _require(event.event, times * event.count)
    elif isinstance(event, dp_accounting.PoissonSampledDpEvent):
        if not 0 <= event.sampling_probability <= 1:
            raise ValueError(f"a sampling probability of {event.sampling_probability!r} is none")
        _require(event.event, times)
