"""Numbers in words."""

from collections.abc import Mapping
from typing import Any

from stages.privacy.rounding import rounded_up


def percent(value: float | None, places: int = 1) -> str:
    """Return a fraction in per cent, a dash where there is none.

    >>> percent(None)
    '-'
    """
    return "-" if value is None else f"{100 * value:.{places}f}\N{NO-BREAK SPACE}%"


def at_most(value: float | None, places: int = 3) -> str:
    """Return a bound rounded up, and say of one that is not there that there is none.

    Guarantee: what is written is never below ``value``.

    >>> at_most(7.9881), at_most(7.989), at_most(8.0, 4), at_most(None)
    ('7.989', '7.989', '8.0000', 'none')
    """
    return "none" if value is None else rounded_up(value, places)


def interval(found: Mapping[str, float]) -> str:
    """Return a 95 % interval in words.

    >>> interval({"low": 0.25, "high": 0.5})
    '25.0 to 50.0'
    """
    return f"{100 * abs(found['low']):.1f} to {100 * found['high']:.1f}"


def count(value: float) -> str:
    """Return a count, and say of a noised one that it is no exact number.

    >>> count(40), count(40.3)
    ('40', 'about 40')
    """
    return str(value) if isinstance(value, int) else f"about {value:.0f}"


def an_image(tokens: int | None) -> str:
    """Return how many visual tokens an image has, which hangs on its size in some families.

    >>> an_image(64), an_image(None)
    ('64 an image', 'a number that depends on the image')
    """
    return "a number that depends on the image" if tokens is None else f"{tokens} an image"


def all_of(tokens: int | None) -> str:
    """Return the words for all visual tokens of an image, with their number where images have but one.

    >>> all_of(64), all_of(None)
    ('all 64', 'all')
    """
    return "all" if tokens is None else f"all {tokens}"


def is_noised(found: Mapping[str, Any]) -> bool:
    """Tell whether a choice or a figure was made from a noised sum over private units.

    >>> is_noised({"charge": {"release": None}}), is_noised({"charge": {"release": "c0ffee"}})
    (False, True)
    """
    return found.get("charge", {}).get("release") is not None


def basis(found: Mapping[str, Any]) -> str:
    """Say on what a choice was made.

    >>> basis({"version": 1, "records": "public"})
    'on public records, which costs no privacy'
    """
    if is_noised(found):
        return "from one noised sum over private units, charged below"
    return "on public records, which costs no privacy"


def ordered_kinds(metrics: Mapping[str, Any]) -> list[str]:
    """Return the kinds of question in the order of every table, their sum last.

    >>> ordered_kinds({"tuned": {"all": 0, "parity": 0, "digit": 0}})
    ['digit', 'parity', 'all']
    """
    return sorted(metrics["tuned"], key=lambda kind: (kind == "all", kind))


def alarm(statement: Mapping[str, Any]) -> str | None:
    """Return what must stand in red above everything else, or None where the promise was kept.

    >>> alarm({"epsilon": 9.0, "target_epsilon": 8.0, "within_target": False})
    'The privacy spent, epsilon 9.000, is over the target of 8: the promise was not kept.'
    >>> alarm({"epsilon": 1.0, "target_epsilon": 8.0, "within_target": True}) is None
    True
    """
    if statement["epsilon"] is None:
        return "No privacy: this model was trained without noise, and may reveal any record it learned from."
    if not statement["within_target"]:
        return (
            f"The privacy spent, epsilon {rounded_up(statement['epsilon'])}, is over the target of "
            f"{statement['target_epsilon']:g}: the promise was not kept."
        )
    return None
