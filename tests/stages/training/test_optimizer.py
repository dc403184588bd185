"""Updates equal torch's optimizers where everything is updated, and touch nothing where nothing is."""

import pytest
import torch

from stages.training.optimizer import Optim, OptimizerState, update


def section(kind: str, **changes) -> Optim:
    return Optim(
        **{"kind": kind, "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "schedule": "constant", **changes}
    )


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_it_equals_torch_when_every_weight_is_updated(kind):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(7, generator=generator)
    reference = torch.nn.Parameter(weights.clone())
    optimizer = (
        torch.optim.Adam([reference], lr=0.1, betas=(0.9, 0.99))
        if kind == "adam"
        else torch.optim.SGD([reference], lr=0.1, momentum=0.9)
    )
    state = OptimizerState.zeros(weights)
    for _ in range(5):
        gradient = torch.randn(7, generator=generator)
        reference.grad = gradient.clone()
        optimizer.step()
        weights, state = update(weights, state, gradient, torch.ones(7, dtype=torch.bool), section(kind), 0.1)
    assert torch.allclose(weights, reference, atol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_weights_that_are_not_updated_keep_value_and_state(kind):
    weights, state = torch.ones(4), OptimizerState.zeros(torch.ones(4))
    is_updated = torch.tensor([True, False, True, False])
    after, moved = update(weights, state, torch.ones(4), is_updated, section(kind), 0.1)
    assert after[1] == after[3] == 1 and after[0] != 1
    assert moved.first_P.tolist()[1::2] == [0, 0] and moved.updates_P.tolist() == [1, 0, 1, 0]


def test_the_cosine_schedule_falls_from_the_full_rate_towards_zero():
    rates = [section("adam", schedule="cosine").rate_at(step, 10) for step in range(10)]
    assert rates[0] == 0.1 and rates == sorted(rates, reverse=True) and 0 < rates[-1] < 0.005


def test_a_learning_rate_that_learns_nothing_is_refused():
    with pytest.raises(ValueError, match="optim.learning_rate must be positive"):
        section("adam", learning_rate=0.0)
