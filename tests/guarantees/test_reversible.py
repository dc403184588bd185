"""Reversible layers have the per-unit gradients of the same formulas by plain autograd, in float64."""

from pathlib import Path

import pytest
import torch
from learners import learner_of
from reversible_models import unreversed

from benchmarks.tiny_directories import TINY, write_directory
from models import ALL, PRUNED, picture, rows
from stages.privacy.clipping_rule import Clipping
from stages.records.row import IMAGE, Message, Row
from stages.trainable import rebuilding
from stages.trainable.reversible_chain import Chain
from stages.training.estimators import clipped_gradient_sum, plain_gradient_sum
from stages.training.learner import Learner
from stages.training.preflight import require_exact

CLOSE = 1e-6
"""RMSNorm of the frozen layers computes in float32 whatever the model's type."""


def reversible(path: Path, units: int = 3, rule=ALL, **more) -> Learner:
    return learner_of(path, rows(units, 2), rule, kind="reversible", **more)


def by_plain_autograd(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Return each unit's gradient, one row at a time through the formulas with an ordinary graph, (U, P)."""
    weights = list(learner.trainable.parameters().values())
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "_run", unreversed)
        for unit_rows in learner.encoded.rows_by_unit():
            total_P = torch.zeros_like(learner.trainable.flat())
            for row in unit_rows:
                parts = torch.autograd.grad(learner.losses([int(row)])[0], weights)
                total_P += torch.cat([part.flatten() for part in parts])
            found.append(total_P / len(unit_rows))
    return torch.stack(found)


def clipped(found_UP: torch.Tensor, clip: float) -> torch.Tensor:
    return (found_UP * (clip / found_UP.norm(dim=1, keepdim=True)).clamp(max=1)).sum(dim=0)


def is_close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).norm() <= CLOSE * expected.norm())


@pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])
def test_clipped_and_plain_sums_equal_one_unit_at_a_time_autograd(tiny_llava, rule, monkeypatch):
    learner = reversible(tiny_llava, rule=rule)
    expected_UP = by_plain_autograd(learner, monkeypatch)
    clip = float(expected_UP.norm(dim=1).median())
    units = learner.encoded.rows_by_unit()
    assert is_close(clipped_gradient_sum(learner, units, Clipping(clip)).sum_P, clipped(expected_UP, clip))
    assert is_close(plain_gradient_sum(learner, units), expected_UP.sum(dim=0))
    assert all(weight.grad is None for weight in learner.model.parameters())


def test_adding_a_unit_moves_the_sum_by_at_most_the_clip(tiny_llava):
    learner = reversible(tiny_llava)
    units, clip = learner.encoded.rows_by_unit(), Clipping(1e-3)
    whole = clipped_gradient_sum(learner, units, clip).sum_P
    for left_out in range(len(units)):
        others = [unit for place, unit in enumerate(units) if place != left_out]
        moved = float((whole - clipped_gradient_sum(learner, others, clip).sum_P).norm())
        assert 0.99e-3 <= moved <= 1.000001e-3


def test_sums_from_other_activations_than_the_forward_ones_are_caught(tiny_llava, monkeypatch):
    learner = reversible(tiny_llava)
    expected_UP = by_plain_autograd(learner, monkeypatch)
    honest = rebuilding._Rerun.across
    monkeypatch.setattr(rebuilding._Rerun, "across", lambda self, pair: honest(self, pair) * 1.01)
    found = clipped_gradient_sum(learner, learner.encoded.rows_by_unit(), Clipping(1e9)).sum_P
    assert not is_close(found, expected_UP.sum(dim=0))
    with pytest.raises(ValueError, match="rebuilt with an error of"):
        require_exact(learner, None)


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_family_has_the_gradients_of_plain_autograd(name, tmp_path, monkeypatch):
    path = write_directory(name, tmp_path / "model")
    given = [
        Row(
            id=f"{unit}",
            unit=f"unit {unit}",
            kind="digit",
            messages=(Message("user", f"{IMAGE}which digit is this ?"), Message("assistant", answer)),
            images=(picture(unit),),
        )
        for unit, answer in enumerate(("seven", "odd"))
    ]
    learner = learner_of(path, given, ALL, kind="reversible")
    expected_UP = by_plain_autograd(learner, monkeypatch)
    assert float(expected_UP.norm(dim=1).min()) > 0
    clip = float(expected_UP.norm(dim=1).min()) / 2
    units = learner.encoded.rows_by_unit()
    assert is_close(clipped_gradient_sum(learner, units, Clipping(clip)).sum_P, clipped(expected_UP, clip))
