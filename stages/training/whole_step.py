"""One step as the loop takes it, from its state to the new weights, to be counted and not to be released.

Shapes: P trainable weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stages.privacy.clipping import ClippedSum
from stages.privacy.noise import NoisySum, add_noise, publish, released_before
from stages.privacy.prepared_noise import StandardNoise
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.micro_batches import Units
from stages.training.noisy_mean import NoisyMean
from stages.training.optimizer import Optim, OptimizerState, update


def whole_step(
    learner: Learner,
    units: Units,
    mechanism: Mechanism,
    optim: Optim,
    looking: Callable[[bool], None] = lambda begins: None,
    noise_waits_aside: bool = False,
) -> None:
    """Hold what a run holds, look at ``units``, add noise and update; changes no weight.

    Alive all the time are the flat weights, the optimizer's state, and the noise that comes next, unless that
    waits in other memory, as it does beside a GPU (``noise_waits_aside``). ``looking`` is told when the look
    at the units begins and when it has ended. Which weights are updated is not chosen
    here, for that hangs on values: it takes a byte a weight where blocks are chosen, and what ``magnitude``
    sorts and ``optim.shrink`` decomposes is not counted. Works on models without values.
    """
    weights_P = learner.trainable.flat()
    wide_P = weights_P.to(torch.promote_types(weights_P.dtype, torch.float32))
    state = OptimizerState.zeros(wide_P, optim)
    size = len(weights_P) if mechanism.directions is None else mechanism.directions.count
    size = 0 if mechanism.noise_multiplier is None else size
    here = 0 if noise_waits_aside else size
    waiting_P = wide_P.new_zeros(here, dtype=torch.float64)
    learner.trainable.assign(weights_P.clone())
    looking(True)
    total = mechanism.total(learner, units, step=0)
    looking(False)
    noise_P = wide_P.new_zeros(size, dtype=torch.float64) if noise_waits_aside else waiting_P
    following_P = torch.zeros_like(waiting_P)  # the next step's is drawn while this step's is added
    noisy = publish(total) if isinstance(total, Tensor) else _noised(total, mechanism, noise_P)
    del total, noise_P, waiting_P
    if mechanism.directions is not None:  # slopes along directions make a sum over weights
        noisy = released_before(torch.zeros_like(wide_P, dtype=torch.float64))
    mean = NoisyMean.of(noisy, 1.0, mechanism.deviation())
    is_updated_P = torch.ones_like(wide_P, dtype=torch.bool)
    update(weights_P, state, mean, is_updated_P, optim, optim.learning_rate)
    del following_P


def _noised(total: ClippedSum, mechanism: Mechanism, noise_P: Tensor) -> NoisySum:
    assert mechanism.noise_multiplier is not None
    return add_noise(total, mechanism.noise_multiplier, StandardNoise(noise_P, mechanism.noise or "gaussian"))
