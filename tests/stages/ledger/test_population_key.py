"""One secret key a population, made once, kept by its owner, and a uniform hash."""

import math
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ledger.population_key import PopulationKey, key_path, population_key


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep keys in a folder of the test's own."""
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_a_population_keeps_its_key_and_no_other_has_it(scratch: Path) -> None:
    assert population_key("clinic") == population_key("clinic")
    assert population_key("clinic") != population_key("clinic 2")
    assert not [file for file in scratch.rglob("*") if "clinic" in file.name]


def test_the_key_file_is_the_owners_only() -> None:
    population_key("clinic")
    assert key_path("clinic").stat().st_mode & 0o777 == 0o600
    assert key_path("clinic").parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in key_path("clinic").parent.iterdir()] == [key_path("clinic").name]


def test_a_key_shows_in_no_text() -> None:
    key = population_key("clinic")
    assert key.secret.hex() not in repr(key) and repr(key.secret) not in repr(key)


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_damaged_key_is_refused_rather_than_replaced(content: bytes) -> None:
    population_key("clinic")
    key_path("clinic").write_bytes(content)
    with pytest.raises(ValueError, match="is not a population key of 32 bytes: restore it from your backup"):
        population_key("clinic")
    assert key_path("clinic").read_bytes() == content


def _ask(number: int) -> bytes:
    return population_key("contested").secret


def test_processes_that_ask_for_the_first_time_at_once_get_one_key() -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_ask, range(32), chunksize=1))) == 1


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
