"""A white-box auditor of the DP engine: canaries with orthogonal gradients go through the real mechanism.

Every canary is a unit whose gradient is one coordinate, far above the clip. A coin decides which of them the
run has; the engine's own sampling, clipping, noise and choice of updated weights do the rest; whoever sees
what was published scores each canary by its coordinate and guesses coins (stages/privacy/one_run_bound.py).
It audits flat clipping over all weights, ghost norms, and one process; not the loop around a step. Of zeroth
order it sees the update, in which a canary's coordinate stands for its slopes along all directions.

Shapes: M canaries, R rows, I images of these rows, P = ``CANARIES`` trainable weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stages.core.speed import Speed
from stages.privacy.accounting import Target
from stages.privacy.clipping_rule import Clipping
from stages.privacy.directions import Directions
from stages.privacy.one_run_bound import CONFIDENCE, Guesses, epsilon_lower_bound, guess
from stages.privacy.plan import Plan
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
from stages.privacy.stream import RunKey, Streams
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.token_rows import IGNORED, TokenRow, TokenRows
from stages.training.accumulated import Scores, mask_of
from stages.training.learner import Learner
from stages.training.mechanism import Mechanism
from stages.training.update_pruning import Update, updated_weights

SIDE = 128
CANARIES = 2 * SIDE**2
IMAGES = 4
"""Images of a row."""
CLIP = 0.5
STEEP = 16.0
"""Norm of a canary's gradient before clipping, over the clip."""
GUESSES = CANARIES // 64
"""k+ and k-, fixed before anybody looks."""
DELTA = 1e-5
EACH = 1 - (1 - CONFIDENCE) / 2
"""Confidence of each of two attacks, so that the better one has ``CONFIDENCE``."""
PUBLIC_SEED = 7
"""A seed that anybody could guess, as ``seed.start`` of params.yaml is."""
SPEED = Speed(
    device="cpu",
    threads=0,
    micro_batch=1024,
    micro_batch_tokens=2**20,
    memory_limit=None,
    recompute_activations=False,
    processes=1,
    shard_base=False,
    checkpoint_every=1,
)


@dataclass(frozen=True)
class Trial:
    """One run to audit, and what it claims."""

    epsilon: float = 2.0
    steps: int = 1
    rate: float = 1.0
    rows: int = 1
    """Rows of every unit."""
    images_only: bool = False
    """Put canaries into the layer that sees images, and none into the one that sees rows."""
    prune: Literal["all", "block", "magnitude", "random", "accumulated"] = "all"
    directions: int = 0
    """Directions of a zeroth-order step (K), and then K / 4 canaries, so that they hardly disturb each other;
    0: gradients."""

    @property
    def canaries(self) -> int:
        """Return M."""
        if self.directions:
            return self.directions // 4
        return CANARIES // 2 if self.images_only else CANARIES

    @property
    def guesses(self) -> int:
        """Return k+ and k-, fixed before anybody looks."""
        return self.canaries // 8 if self.directions else GUESSES

    def plan(self) -> Plan:
        """Return the plan that makes the claim."""
        people = Population(name="canaries", public=True, max_units=CANARIES, unit="canary")
        sampling = Sampling(steps=self.steps, rate=self.rate, expected_batch=self.rate * CANARIES / 2)
        target = Target(relation="add_or_remove_one", epsilon=self.epsilon, delta=DELTA)
        clipping = Clipping(CLIP)
        if not self.directions:
            return plan_for("gradient", target, people, sampling, clipping=clipping, rows_per_unit=self.rows)
        along = Directions(count=self.directions, perturbation=1e-3, seed=PUBLIC_SEED)
        more: Any = {"clipping": clipping, "rows_per_unit": self.rows, "directions": along}
        return plan_for("zeroth_order", target, people, sampling, **more)


@dataclass(frozen=True)
class Audited:
    """What the auditor found of one run."""

    claimed: float
    guesses: Guesses
    bound: float
    """The larger of what the attacks show, at 95 % confidence for both together."""


class Coordinates(nn.Module):
    """One layer that sees rows and one that sees images, each a table of coordinates."""

    def __init__(self) -> None:
        """Start at zero: gradients do not depend on the weights."""
        super().__init__()
        self.images, self.rows = (nn.Linear(SIDE, SIDE, bias=False) for _ in range(2))
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def losses(self, canary_R: NDArray[np.int64]) -> Tensor:
        """Return a loss a row, whose gradient is the canary's coordinate times ``STEEP * CLIP``, (R,)."""
        first = torch.from_numpy(canary_R < SIDE**2)
        place = torch.from_numpy(canary_R % SIDE**2)
        given = nn.functional.one_hot(place % SIDE, SIDE).float()
        slope = STEEP * CLIP * nn.functional.one_hot(place // SIDE, SIDE).float()
        image_losses_I = (
            self.images(_each(given * first[:, None])) * _each(slope * first[:, None] / IMAGES)
        ).sum(dim=1)
        row_losses_R = (self.rows(given * ~first[:, None]) * slope).sum(dim=1)
        total_R: Tensor = image_losses_I.view(-1, IMAGES).sum(dim=1) + row_losses_R
        return total_R


class CanaryLearner(Learner):
    """A learner whose rows are canaries; everything else is the engine's."""

    def losses(self, rows: Sequence[int]) -> Tensor:
        """Return the loss of each row, shape (R,)."""
        losses_R: Tensor = self.family.losses(self.encoded.rows_canary[list(rows)])  # type: ignore[attr-defined]
        return losses_R


def learner_of(canaries: NDArray[np.int64], rows: int) -> CanaryLearner:
    """Return a learner on units that are these canaries, each with so many rows."""
    model = Coordinates()
    row = TokenRow((0,), (IGNORED,), ((0,),), (0,) * IMAGES, unit=0, kind=0)
    canary_R = np.repeat(canaries, rows)
    encoded: Any = SimpleNamespace(rows=TokenRows.of([row] * len(canary_R)), rows_canary=canary_R)
    trainable = TrainableLayers.of(model, lambda layer: "image" if layer == "images" else "row")
    return CanaryLearner(model, model, trainable, encoded, SPEED)


def published(trial: Trial, plan: Plan, is_in_M: NDArray[np.bool_], secret: bytes) -> Tensor:
    """Run the mechanism on the canaries that are in, and return the sum over steps of what updates, (P,)."""
    mechanism = Mechanism.of(plan)
    canaries = np.flatnonzero(is_in_M)
    learner = learner_of(canaries, trial.rows)
    units = [np.arange(trial.rows) + trial.rows * unit for unit in range(len(canaries))]
    blocks = learner.trainable.slices()
    streams = Streams(RunKey(secret), "white-box audit", "finetune")
    section = Update(prune=trial.prune, keep=0.5, warmup_steps=max(1, trial.steps // 2))
    total_P, scores = torch.zeros(CANARIES, dtype=torch.float64), Scores.zeros(blocks)
    with mechanism.prepared_noise(learner.trainable, streams, trial.steps) as noise:
        for step in range(trial.steps):
            support = scores.best(section.keep, blocks) if section.is_masked(step) else None
            is_in_P = None if support is None else mask_of(support, blocks, total_P)
            total = mechanism.total(learner, mechanism.sample(units, streams, step), step, support)
            released = mechanism.release(total, noise, step, is_in_P)
            noisy = mechanism.gradient(released, learner.trainable, step)
            if section.warms_up(step):
                scores = scores.after(noisy, mechanism.deviation(), blocks)
            if is_in_P is None:
                named = list(blocks.values())
                is_in_P = updated_weights(noisy, named, section, seed=PUBLIC_SEED, step=step)
            total_P += noisy.sum_P * is_in_P
    return total_P


def audit_run(trial: Trial, seed: int) -> Audited:
    """Toss coins, run, score, guess, and return the larger bound of two attacks.

    One scores by what was published; the other first subtracts the noise that a public seed would have
    drawn, exactly as the planted fault draws it: a real attacker would have to guess how, too. ``seed``
    decides the coins and stands for the run key, so that an audit can be repeated.
    """
    rng = np.random.default_rng([seed, 0xC0135])
    is_in_M = rng.random(trial.canaries) < 0.5
    plan = trial.plan()
    assert plan.noise_multiplier is not None
    seen_P = published(trial, plan, is_in_M, rng.bytes(32)).numpy()
    attacks = [seen_P]
    if not trial.directions:  # whose noise is not one number a coordinate
        attacks.append(seen_P - plan.noise_multiplier * CLIP * guessable_noise(trial.steps))
    each = trial.guesses
    found = [guess(scores_P[: len(is_in_M)], is_in_M, each, each) for scores_P in attacks]
    bounds = [epsilon_lower_bound(one, DELTA, EACH) for one in found]
    best = int(np.argmax(bounds))
    return Audited(trial.epsilon, found[best], bounds[best])


def guessable_noise(steps: int) -> NDArray[np.float64]:
    """Return the noise that a generator seeded with the public seed and the step would have drawn, (P,)."""
    return sum((seeded_noise(step).numpy() for step in range(steps)), np.zeros(CANARIES))


def seeded_noise(step: int) -> Tensor:
    """Return standard normal numbers from a seed that everybody can read in params.yaml, shape (P,)."""
    generator = torch.Generator().manual_seed(PUBLIC_SEED + step)
    return torch.randn(CANARIES, generator=generator, dtype=torch.float64)


def _each(rows: Tensor) -> Tensor:
    return rows.repeat_interleave(IMAGES, dim=0)
