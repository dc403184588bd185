"""Every cell of a budget against dp_accounting alone: its own events, its own accountant, a bisection."""

import json
import math
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import pytest
from checkout import edit_params
from commands import Command
from dp_accounting import NeighboringRelation, dp_event, pld

from tests.pipeline.budget.conftest import PEOPLE

pytestmark = pytest.mark.slow
EPSILON, DELTA, UNITS, HELD_OUT = 2.0, 1e-5, 1000, 0.2
BATCHES, STEPS, WEIGHTS = (200, 800), (5, 20), (500, 40_000)


@cache
def spent(rate: float, noise_multiplier: float, steps: int) -> float:
    accountant = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4)
    gaussian = dp_event.GaussianDpEvent(noise_multiplier)
    accountant.compose(dp_event.PoissonSampledDpEvent(rate, gaussian), steps)
    return float(accountant.get_epsilon(DELTA))


def least_noise(rate: float, steps: int) -> float:
    """Return the smallest multiple of 0.001 that keeps the target, by bisection."""
    low, high = 300, 30_000
    assert spent(rate, low / 1000, steps) > EPSILON >= spent(rate, high / 1000, steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if spent(rate, middle / 1000, steps) <= EPSILON else (middle, high)
    return high / 1000


def test_every_cell_is_what_brute_force_finds_and_so_is_the_recommendation(
    dualpriv: Command, folder: Path
) -> None:
    edit_params(folder, PEOPLE)
    status, said, _ = dualpriv(
        *("budget", "--no-time", "--json", "--picture", "budget.svg"),
        *("--epsilon", str(EPSILON), "--delta", str(DELTA), "--batch", "200,800", "--steps", "5,20"),
        *("--weights", "500,40000"),
    )
    found = json.loads(said)
    assert status == 0
    options = {(option["batch"], option["steps"]): option for option in found["options"]}
    assert set(options) == {(batch, steps) for batch in BATCHES for steps in STEPS}
    ratios, work = {}, {}
    for (batch, steps), option in options.items():
        rate = batch / (UNITS * (1 - HELD_OUT))
        noise = least_noise(rate, steps)
        assert option["rate"] == pytest.approx(rate)
        assert option["noise_multiplier"] == pytest.approx(noise)
        assert option["epsilon"] == pytest.approx(spent(rate, noise, steps), abs=1e-6)
        curve = {each["steps"]: each["epsilon"] for each in option["epsilon_by_step"]}
        assert set(curve) == {1, *(round(steps * quarter / 4) for quarter in (1, 2, 3, 4))}
        for step, epsilon in curve.items():
            assert epsilon == pytest.approx(spent(rate, noise, step), abs=1e-6)
        for told, weights in zip(option["noise_to_signal"], WEIGHTS, strict=True):
            assert told["weights"] == weights
            assert told["step"] == pytest.approx(noise * math.sqrt(weights) / batch)
            assert told["run"] == pytest.approx(noise * math.sqrt(weights / steps) / batch)
        ratios[batch, steps], work[batch, steps] = noise / batch / math.sqrt(steps), batch * steps
    least = min(ratios.values())
    whole = least_noise(1.0, 1) / (UNITS * (1 - HELD_OUT))
    assert least >= whole * (1 - 2e-3), "something beats a look at all units, by which too few are told"
    enough = {each: ratio for each, ratio in ratios.items() if each[1] >= 20}  # of sampling.steps 40
    near = [each for each, ratio in enough.items() if ratio <= 1.05 * min(enough.values())]
    best = min((work[each], each) for each in near)[1]
    assert (found["recommended"]["expected_batch"], found["recommended"]["steps"]) == best
    assert found["recommended"]["rate"] == options[best]["rate"]
    picture = ElementTree.parse(folder / "budget.svg").getroot()
    assert picture.tag.endswith("svg")
    words = "".join(picture.itertext())
    assert f"Batch {best[0]}, {best[1]} steps; dashed: the target" in words
