"""A declared population is one that budgets can belong to."""

from dataclasses import replace

import pytest

from stages.privacy.population import Population

GOOD = Population(name="clinic", public=False, max_units=100, unit="patient")


@pytest.mark.parametrize(
    "change",
    [{"name": ""}, {"name": " clinic"}, {"name": "\n"}, {"max_units": 0}, {"max_units": -5}, {"unit": " "}],
)
def test_a_population_without_name_bound_or_unit_cannot_be_built(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"population.{next(iter(change))} must"):
        replace(GOOD, **change)  # type: ignore[arg-type]
