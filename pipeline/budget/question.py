"""What a budget is asked about: a target, a population, and the batches, steps and weights to try."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.budget.ranges import whole_numbers
from pipeline.presets import Preset, merge, read_preset
from stages.core.params import read_params, read_section
from stages.core.seed import Seed
from stages.evaluation.settings import EvaluateSettings
from stages.privacy.accounting import Target
from stages.privacy.plan import Beside, EstimatorKind, Others, Plan
from stages.privacy.planning import plan_for
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
from stages.records.data import Data
from stages.training.estimator import Estimator

BACKBONE = Path("models/backbone")
"""The model of an earlier pass."""
_CHOICES = ("profile", "calibrate")
"""Stages that may look at private units before training."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says; None leaves it to params.yaml."""

    preset: str | None
    units: int | None
    epsilon: float | None
    delta: float | None
    batch: str | None
    steps: str | None
    weights: str | None
    hours: float | None
    gib: float | None
    with_time: bool


@dataclass(frozen=True, kw_only=True)
class Question:
    """The numbers that decide; every one is a public constant."""

    params: dict[str, Any]
    """``params.yaml`` with what the command line says instead."""
    preset: Preset | None
    target: Target
    population: Population
    estimator: Estimator
    others: Others
    """What the same pass spends beside training."""
    seed: Seed
    trained: float
    """Units to expect on the training side: the declared number less the held-out share."""
    batches: tuple[int, ...]
    steps: tuple[int, ...]
    configured_steps: int
    """sampling.steps of params.yaml, whatever is asked about."""
    weights: tuple[int, ...]

    @classmethod
    def of(cls, asked: Asked) -> "Question":
        """Read params.yaml and the command line; whatever makes no sense is a ValueError."""
        preset = read_preset(asked.preset) if asked.preset is not None else None
        params = _merged(asked, preset)
        population = read_section(params, "population", Population)
        estimator = read_section(params, "estimator", Estimator)
        sampling, data = read_section(params, "sampling", Sampling), read_section(params, "data", Data)
        target = read_section(params, "privacy", Target)
        if estimator.kind == "nonprivate":
            raise ValueError(
                "estimator.kind nonprivate spends no epsilon, so there is nothing to plan: set it to "
                "gradient or zeroth_order"
            )
        trained = population.max_units * (1 - data.heldout if data.private.split is None else 1)
        steps = _near(sampling.steps) if asked.steps is None else whole_numbers(asked.steps, "--steps")
        return cls(
            params=params,
            preset=preset,
            target=target,
            population=population,
            estimator=estimator,
            others=others_of(params, data.composition(target.relation)),
            seed=read_section(params, "seed", Seed),
            trained=trained,
            batches=_batches(asked.batch, sampling, trained),
            steps=steps,
            configured_steps=sampling.steps,
            weights=_weights(asked.weights, params, preset, estimator.kind),
        )

    @property
    def slopes(self) -> int | None:
        """Return how many slopes a step of zeroth order adds noise to; None for gradients, of all weights."""
        directions = self.estimator.directions(self.seed.start)
        return None if directions is None else directions.count

    def sampling(self, batch: int, steps: int) -> Sampling:
        """Return how units are sampled; the rate has four digits, so that a person can copy it.

        Where fewer units than declared are trained on, the true batch is smaller and epsilon is the same.
        """
        rate = min(1.0, float(f"{batch / self.trained:.4g}"))
        return Sampling(steps=steps, rate=rate, expected_batch=float(batch))

    def plan(self, sampling: Sampling) -> Plan:
        """Return the plan that stage plan would write."""
        return planned(self.estimator, self.target, self.population, sampling, self.others, self.seed)

    def whole_plan(self) -> Plan:
        """Return the plan of one step that looks at every training unit: the least noise there can be.

        Without sampling, T steps want sqrt(T) times the noise of one and add up T times its signal, so the
        noise over the signal of the whole run hangs on no T.
        """
        return self.plan(Sampling(steps=1, rate=1.0, expected_batch=self.trained))


def planned(
    estimator: Estimator,
    target: Target,
    population: Population,
    sampling: Sampling,
    others: Others,
    seed: Seed,
) -> Plan:
    """Return the plan of these sections of params.yaml."""
    return plan_for(
        estimator.kind,
        target,
        population,
        sampling,
        clipping=estimator.clipping(),
        rows_per_unit=estimator.rows_per_unit,
        others=others,
        directions=estimator.directions(seed.start),
        noise=estimator.zeroth_order.noise,
    )


def _merged(asked: Asked, preset: Preset | None) -> dict[str, Any]:
    params = read_params()
    if preset is not None:
        merge(params, preset.params, f"preset '{asked.preset}'")
    said: dict[str, dict[str, Any]] = {
        "population": {"max_units": asked.units},
        "privacy": {"epsilon": asked.epsilon, "delta": asked.delta},
    }
    for section, values in said.items():
        if not isinstance(params.get(section), dict):
            raise KeyError(f"params.yaml: section '{section}' is missing")
        params[section] |= {key: value for key, value in values.items() if value is not None}
    return params


def _near(number: int) -> tuple[int, ...]:
    """Return half, once and twice a number."""
    return tuple(sorted({max(1, number // 2), number, 2 * number}))


def _batches(text: str | None, sampling: Sampling, trained: float) -> tuple[int, ...]:
    most = int(trained)
    if most < 1:
        raise ValueError(
            f"of the declared units {trained:g} are trained on, which is not one: declare more, or lower "
            "data.heldout"
        )
    if text is None:
        near = _near(max(1, round(sampling.expected_batch)))
        return tuple(sorted({min(batch, most) for batch in near}))
    found = whole_numbers(text, "--batch")
    if found[-1] > most:
        raise ValueError(
            f"--batch {text}: a batch of {found[-1]} units is more than the {trained:g} that are trained on "
            "(population.max_units or --units, less data.heldout)"
        )
    return found


def others_of(params: dict[str, Any], composition: Any) -> Others:
    """Return what a pass spends beside training."""
    made = [
        Beside(
            stage=stage,
            split="train",
            rate=read_section(params, f"{stage}.private.rate", float),
            noise_multiplier=read_section(params, f"{stage}.private.noise_multiplier", float),
        )
        for stage in _CHOICES
        if read_section(params, f"{stage}.on", str) == "train"
    ]
    evaluate = read_section(params, "evaluate", EvaluateSettings)
    return Others(charges=(*made, *evaluate.planned()), composition=composition)


def model_of(params: dict[str, Any], preset: Preset | None) -> Path | None:
    """Return a directory with the config.json of the model to train; None where there is none here."""
    if preset is not None:
        return preset.config.parent if preset.config.name == "config.json" else preset.config
    from stages.vlm.source import Model

    model = read_section(params, "model", Model)
    places = (BACKBONE,) if model.hub is not None else (BACKBONE, model.path)
    return next((path for path in places if (path / "config.json").is_file()), None)


def _weights(
    text: str | None, params: dict[str, Any], preset: Preset | None, kind: EstimatorKind
) -> tuple[int, ...]:
    """Return the numbers of weights to try; left out, that of section ``trainable`` on the model."""
    from stages.trainable.adapters import count_weights
    from stages.trainable.settings import Trainable
    from stages.vlm.family import family_of, outline

    if text is not None:
        if kind == "zeroth_order":
            raise ValueError(
                f"--weights {text}: zeroth order adds noise to slopes, whatever number of weights learns; "
                "leave it out, and set estimator.zeroth_order.directions to change their number"
            )
        return whole_numbers(text, "--weights")
    path = model_of(params, preset)
    if path is None:
        say = "" if kind == "zeroth_order" else "say --weights, or "
        raise ValueError(
            f"how many weights learn is not known, for no config.json of the model is here: {say}run "
            "`dualpriv repro backbone`"
        )
    return (count_weights(outline(path), read_section(params, "trainable", Trainable), family_of(path)),)
