"""The key of a population is a keyed, uniform hash."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ledger.population_key import PopulationKey


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_damaged_key_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="has 32 bytes: restore the ledger from your backup"):
        PopulationKey(content)


def test_a_key_shows_in_no_text() -> None:
    key = PopulationKey(bytes(range(32)))
    assert key.secret.hex() not in repr(key) and repr(key.secret) not in repr(key)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["split", "salt"]), st.binary())
def test_a_fraction_lies_in_the_half_open_unit_interval_and_repeats(
    secret: bytes, purpose: str, content: bytes
) -> None:
    fraction = PopulationKey(secret).fraction(purpose, content)
    assert 0 <= fraction < 1
    assert fraction == PopulationKey(secret).fraction(purpose, content)


class _AllOnes(PopulationKey):
    """A key whose hash is the largest there is."""

    def digest(self, purpose: str, content: bytes) -> bytes:
        return b"\xff" * 32


def test_the_largest_hash_is_still_below_one() -> None:
    assert _AllOnes(bytes(32)).fraction("split", b"") < 1


def test_fractions_are_uniform_and_purposes_independent() -> None:
    key = PopulationKey(bytes(range(32)))
    split = [key.fraction("split", b"%d" % number) for number in range(5000)]
    other = [key.fraction("other", b"%d" % number) for number in range(5000)]
    assert _distance_from_uniform(split) < 1.95 / math.sqrt(5000)  # Kolmogorov-Smirnov at 0.001
    differences = [(one - two) % 1 for one, two in zip(split, other, strict=True)]
    assert _distance_from_uniform(differences) < 1.95 / math.sqrt(5000)


def test_control_slightly_skewed_fractions_are_rejected() -> None:
    key = PopulationKey(bytes(range(32)))
    skewed = [key.fraction("split", b"%d" % number) ** 1.1 for number in range(5000)]
    assert _distance_from_uniform(skewed) > 1.95 / math.sqrt(5000)


def _distance_from_uniform(values: list[float]) -> float:
    ordered = sorted(values)
    return max(
        max((place + 1) / len(ordered) - value, value - place / len(ordered))
        for place, value in enumerate(ordered)
    )
