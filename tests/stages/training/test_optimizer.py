"""Updates equal torch's optimizers where everything is updated, and touch nothing where nothing is."""

import pytest
import torch
from choices import optim

from stages.privacy.clipping import ClippedSum
from stages.privacy.noise import NoisySum
from stages.training import optimizer
from stages.training.noisy_mean import NoisyMean
from stages.training.optimizer import OptimizerState, released_weights, update


def noisy(values: torch.Tensor, deviation: float = 0.0) -> NoisyMean:
    return NoisyMean.of(NoisySum(2 * values), 2.0, 2 * deviation)


@pytest.mark.parametrize("kind", ["adam", "adam_bc", "sgd"])
def test_it_equals_torch_when_every_weight_is_updated(kind):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(7, generator=generator)
    reference = torch.nn.Parameter(weights.clone())
    theirs = (
        torch.optim.Adam([reference], lr=0.1, betas=(0.9, 0.99))
        if kind != "sgd"
        else torch.optim.SGD([reference], lr=0.1, momentum=0.9)
    )
    state = OptimizerState.zeros(weights, optim(kind))
    for _ in range(5):
        gradient = torch.randn(7, generator=generator)
        reference.grad = gradient.clone()
        theirs.step()
        weights, state = update(
            weights, state, noisy(gradient), torch.ones(7, dtype=torch.bool), optim(kind), 0.1
        )
    assert torch.allclose(weights, reference, atol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "adam_bc", "sgd"])
def test_weights_that_are_not_updated_keep_value_and_state(kind):
    weights, state = torch.ones(4), OptimizerState.zeros(torch.ones(4), optim(kind))
    is_updated = torch.tensor([True, False, True, False])
    after, moved = update(weights, state, noisy(torch.ones(4)), is_updated, optim(kind), 0.1)
    assert after[1] == after[3] == 1 and after[0] != 1
    assert moved.first_P.tolist()[1::2] == [0, 0] and moved.updates_P.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("kind", ["adam", "adam_bc", "sgd"])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_few_weights_at_once_are_updated_as_all_at_once(kind, average, monkeypatch):
    section, generator = optim(kind, average=average), torch.Generator().manual_seed(0)
    weights, gradient, other = torch.randn(3, 11, generator=generator)
    chosen = torch.rand(11, generator=generator) < 0.7
    state = update(weights, OptimizerState.zeros(weights, section), noisy(other), chosen, section, 0.1)[1]
    whole, moved = update(weights, state, noisy(gradient, 0.1), chosen, section, 0.1)
    monkeypatch.setattr(optimizer, "_AT_ONCE", 4)
    parts, moved_in_parts = update(weights, state, noisy(gradient, 0.1), chosen, section, 0.1)
    assert torch.allclose(whole, parts, rtol=1e-6)
    for expected, found in zip(moved.vectors(), moved_in_parts.vectors(), strict=True):
        assert expected.shape == found.shape and torch.allclose(expected, found, rtol=1e-6)


def test_the_cosine_schedule_falls_from_the_full_rate_towards_zero():
    rates = [optim("adam", schedule="cosine").rate_at(step, 10) for step in range(10)]
    assert rates[0] == 0.1 and rates == sorted(rates, reverse=True) and 0 < rates[-1] < 0.005


def test_a_learning_rate_that_learns_nothing_is_refused():
    with pytest.raises(ValueError, match="optim.learning_rate must be positive"):
        optim("adam", learning_rate=0.0)


def test_adam_bc_takes_the_variance_of_the_noise_out_of_the_second_moment():
    """Tang et al. 2023, written out for one weight: what is below the floor stays at the floor."""
    weights, slow = torch.zeros(1), (0.0, 0.0, 0.0)
    state = start = OptimizerState.zeros(torch.zeros(1), optim("adam_bc"))
    for step, value in enumerate((0.5, 0.01, 0.3), 1):
        first, second, weight = slow
        first, second = 0.9 * first + 0.1 * value, 0.99 * second + 0.01 * value**2
        square = max(second / (1 - 0.99**step) - 0.04, 0.1 * 0.04)
        slow = first, second, weight - 0.1 * first / (1 - 0.9**step) / (square**0.5 + 1e-8)
        given = noisy(torch.tensor([value]), 0.2)
        weights, state = update(weights, state, given, torch.ones(1, dtype=torch.bool), optim("adam_bc"), 0.1)
        assert weights.item() == pytest.approx(slow[2], rel=1e-5)
    plain = update(torch.zeros(1), start, given, torch.ones(1) > 0, optim("adam"), 0.1)
    bold = update(torch.zeros(1), start, given, torch.ones(1) > 0, optim("adam_bc"), 0.1)
    assert abs(bold[0]) > abs(plain[0]), "without the noise's part, steps are larger"


def test_the_average_of_the_weights_is_unbiased_and_off_unless_asked():
    section = optim("sgd", average=0.5)
    weights, state, seen = torch.zeros(2), OptimizerState.zeros(torch.zeros(2), section), []
    for value in (1.0, -2.0, 3.0):
        given = noisy(torch.tensor([value, 0.0]))
        weights, state = update(weights, state, given, torch.tensor([True, False]), section, 0.1)
        seen.append(weights)
    expected = (seen[0] + 2 * seen[1] + 4 * seen[2]) / 7
    assert torch.allclose(released_weights(weights, state, section, 3), expected)
    assert torch.equal(released_weights(weights, state, optim("sgd"), 3), weights)


@pytest.mark.parametrize("raw", [torch.ones(2), ClippedSum(torch.ones(2), 1.0), None], ids=str)
def test_optimizers_see_privatised_sums_only(raw):
    with pytest.raises(TypeError, match="optimizers see noisy sums only"):
        NoisyMean.of(raw, 1.0, 0.0)
    with pytest.raises(TypeError, match="weights move by a noisy mean only"):
        state = OptimizerState.zeros(torch.ones(2), optim("sgd"))
        update(torch.ones(2), state, raw, torch.ones(2) > 0, optim("sgd"), 0.1)


@pytest.mark.parametrize(("name", "value"), [("average", 1.0), ("noise_floor", 0.0), ("beta2", -0.1)])
def test_settings_outside_their_ranges_are_refused(name, value):
    with pytest.raises(ValueError, match=f"optim.{name} must lie in"):
        optim("adam", **{name: value})
