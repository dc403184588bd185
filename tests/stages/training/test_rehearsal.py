"""Rehearsals on public records: noise as large beside a small batch as in the real run, and real training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import PRUNED, rows, speed
from stages.core.files import write_json
from stages.core.params import read_params
from stages.privacy.plan import Plan
from stages.records.source import Source
from stages.training.learner import Learner
from stages.training.loop import Choices
from stages.training.rehearsal import Prepared, Rehearsal, rehearse
from stages.training.rehearse import Records
from stages.vlm.encoder import encode_set
from stages.vlm.family import load

PUBLIC = Source(
    path=Path("public"), rows=None, format="llava", unit="id", kind=None, split=None, on_bad_record="stop"
)
PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def rehearsal(tiny_llava: Path) -> Rehearsal:
    """Two steps of the default run on a tiny model."""
    found = Rehearsal.of(read_params(PARAMS))
    return replace(
        found,
        backbone=tiny_llava,
        sampling=replace(found.sampling, steps=2, rate=0.5),
        trainable=replace(found.trainable, rank=2, targets=("q_proj",)),
    )


def test_noise_is_as_large_beside_the_batch_as_in_the_real_run(rehearsal: Rehearsal) -> None:
    real, small = rehearsal.plan(), rehearsal.plan_among(30)
    assert small.sampling.expected_batch == 15.0 and real.noise_multiplier is not None
    assert small.noise_multiplier is not None
    assert small.noise_multiplier / 15.0 == pytest.approx(
        real.noise_multiplier / real.sampling.expected_batch
    )
    assert replace(small, noise_multiplier=0, sampling=real.sampling) == replace(real, noise_multiplier=0)


def test_without_privacy_there_is_no_noise_to_scale(rehearsal: Rehearsal) -> None:
    plain = replace(rehearsal, estimator=replace(rehearsal.estimator, kind="nonprivate"))
    assert plain.plan_among(30).noise_multiplier is None


def test_every_setting_is_tried_from_the_same_start(
    rehearsal: Rehearsal, tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny_llava)
    sets = [encode_set(loaded, rows(units, 2), PRUNED) for units in (8, 3)]
    prepared = Prepared.of(rehearsal, *sets, speed())
    begun, ended, noise = [], [], []

    def watched(learner: Learner, plan: Plan, choices: Choices) -> float:
        begun.append(learner.trainable.flat())
        noise.append(plan.noise_multiplier)
        seconds = rehearse(learner, plan, choices)
        ended.append(learner.trainable.flat())
        return seconds

    monkeypatch.setattr("stages.training.rehearsal.rehearse", watched)
    faster = replace(rehearsal, optim=replace(rehearsal.optim, learning_rate=0.05))
    nearer = replace(rehearsal, target=replace(rehearsal.target, epsilon=1.0))
    for run in (rehearsal, faster, nearer):
        assert prepared.serves(run) and 0.0 <= prepared.accuracy(run) <= 1.0
    fresh = rehearsal.learner(sets[0], speed()).trainable.flat()
    assert torch.equal(begun[0], fresh) and torch.equal(begun[1], fresh)
    assert torch.equal(begun[2], fresh) and noise[0] == noise[1] < noise[2], "each epsilon has its noise"
    assert not torch.equal(ended[0], fresh) and float(fresh.abs().sum()) > 0


def test_a_run_that_may_have_one_budget_alone_has_it(rehearsal: Rehearsal, tmp_path: Path) -> None:
    write_json(tmp_path / "chosen.json", {"chosen": {"layer": 1, "dominant": 6, "contextual": 3}})
    chosen = replace(rehearsal, pruning=tmp_path / "chosen.json", budget=None).rule()
    own = replace(rehearsal, pruning=tmp_path / "chosen.json", budget=(4, 2)).rule()
    assert (chosen.dominant, chosen.contextual) == (6, 3)
    assert (own.dominant, own.contextual) == (4, 2)
    assert own == replace(chosen, dominant=4, contextual=2)


def test_what_is_encoded_is_kept_by_rule_and_model(rehearsal: Rehearsal) -> None:
    records = Records(PUBLIC, speed(), "code")
    hub = replace(rehearsal.model, hub="somebody/llava", revision="0" * 40)
    models = [
        rehearsal.model,
        hub,
        replace(hub, revision="1" * 40),
        replace(rehearsal.model, precision="bfloat16"),
    ]
    runs = [replace(rehearsal, model=model) for model in models]
    keys = {records.key(run, rule) for run in runs for rule in (PRUNED, replace(PRUNED, dominant=1))}
    assert len(keys) == 2 * len(models)
    assert records.key(rehearsal, PRUNED) == records.key(
        replace(rehearsal, seed=replace(rehearsal.seed, start=7)), PRUNED
    )


def test_a_run_that_begins_otherwise_gets_a_learner_of_its_own(
    rehearsal: Rehearsal, tiny_llava: Path
) -> None:
    encoded = encode_set(load(tiny_llava), rows(4, 2), PRUNED)
    prepared = Prepared.of(rehearsal, encoded, encoded, speed())
    assert not prepared.serves(
        replace(rehearsal, seed=replace(rehearsal.seed, start=rehearsal.seed.start + 1))
    )
    assert not prepared.serves(replace(rehearsal, budget=(3, 1))), "other tokens, other rows"
    plain = replace(rehearsal.estimator, kind="nonprivate")
    assert not prepared.serves(replace(rehearsal, estimator=plain)), "another step, and other checks of it"
