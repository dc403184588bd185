"""The side network on every family: exact per-unit gradients, the frozen model's output at the start."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from learners import learner_of
from torch import Tensor, nn
from torch.nn.functional import pad

from benchmarks.tiny_directories import TINY, write_directory
from models import ALL, PRUNED, load_float64, rows, trainable
from stages.privacy.clipping_rule import Clipping
from stages.privacy.preflight import preflight
from stages.privacy.trainable_layers import TrainableLayers
from stages.privacy.unit_gradients import UnitGradients
from stages.records.encoded import Batch, collate
from stages.records.row import Row
from stages.trainable import side_network
from stages.trainable.adapters import attach
from stages.training.estimators import plain_gradient_sum
from stages.training.learner import Learner
from stages.training.micro_batches import MicroBatch
from stages.training.preflight import synthetic_subject
from stages.vlm.encoder import encode_set
from stages.vlm.selection import Rule

EXACT = 1e-5
Learners = Callable[..., Learner]


@pytest.fixture(scope="module", params=sorted(TINY))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(request.param, tmp_path_factory.mktemp("family") / "model")


def some_rows() -> list[Row]:
    """Return three units of two rows each, of unequal lengths."""
    return rows(3, rows_per_unit=2)


def rule() -> Rule:
    return Rule(select="dominant_contextual", merge="cluster", layer=1, dominant=4, contextual=2)


def one_unit_gradient(learner: Learner, unit_rows: np.ndarray) -> Tensor:
    """The slow reference: every row alone through the model, plain autograd, mean over the unit's rows."""
    weights = list(learner.trainable.parameters().values())
    total_P = torch.zeros_like(learner.trainable.flat())
    for row in unit_rows:
        gradient = torch.autograd.grad(learner.losses([int(row)])[0], weights)
        total_P += torch.cat([part.flatten() for part in gradient])
    return total_P / len(unit_rows)


def gradients_of(learner: Learner, norms: str = "choose") -> UnitGradients:
    every = range(len(learner.encoded.rows))
    unit_of_row = np.array([row.unit for row in learner.encoded.rows])
    segments = learner.segments(MicroBatch(list(every), unit_of_row, int(unit_of_row.max()) + 1))
    return UnitGradients.of(learner.trainable, segments, lambda: learner.losses(every), norms=norms)  # type: ignore[arg-type]


@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "backbone run again"])
def test_unit_gradients_gates_included_equal_one_unit_at_a_time_autograd(family: Path, forgets: bool) -> None:
    plain = learner_of(family, some_rows(), rule(), kind="side")
    learner = learner_of(family, some_rows(), rule(), kind="side", recompute_activations=forgets)
    for name, weight in learner.model.named_parameters():
        assert weight.requires_grad == (".side." in name), name
    expected_UP = torch.stack([one_unit_gradient(plain, unit) for unit in plain.encoded.rows_by_unit()])
    norms_U = expected_UP.norm(dim=1)
    for norms in ("choose", "instantiate", "ghost"):
        found = gradients_of(learner, norms)
        assert (found.norms_U() - norms_U).norm() <= EXACT * norms_U.norm()
        found_UP = found.stacked()
        for name, where in learner.trainable.slices().items():
            assert expected_UP[:, where].any(), f"{name} does not move"
            off = (found_UP[:, where] - expected_UP[:, where]).norm()
            assert off <= EXACT * expected_UP[:, where].norm(), name
        clip = float(norms_U.median())
        clipped_P = found.clipped_sum(Clipping(clip)).sum_P
        assert (clipped_P - (clip / norms_U).clamp(max=1) @ expected_UP).norm() <= EXACT * clipped_P.norm()


def test_the_start_is_the_frozen_model_bit_for_bit(family: Path) -> None:
    loaded = load_float64(family)
    batch = collate(encode_set(loaded, some_rows(), rule()), range(6))
    with torch.no_grad():
        before, _ = loaded.family.learned_logits(loaded.model, batch)
        model = attach(loaded.model, trainable(kind="side"), loaded.family, seed=1)
        assert torch.equal(loaded.family.learned_logits(model, batch)[0], before)
        layers = TrainableLayers.of(model)
        layers.assign(layers.flat() + 0.1)
        assert not torch.allclose(loaded.family.learned_logits(model, batch)[0], before)


def test_a_rows_loss_hangs_neither_on_its_batch_nor_on_padding(family: Path) -> None:
    learner = learner_of(family, some_rows(), rule(), kind="side")
    together_R = learner.losses(range(6)).detach()
    for row in range(6):
        assert (learner.losses([row])[0].detach() - together_R[row]).abs() <= 1e-9
    batch = collate(learner.encoded, range(6))
    longer = Batch(
        pad(batch.input_ids_RL, (0, 5), value=learner.encoded.pad_token_id),
        pad(batch.attention_mask_RL, (0, 5)),
        pad(batch.position_ids_ARL, (0, 5)),
        pad(batch.next_labels_RL, (0, 5), value=-100),
        batch.features,
    )
    padded_R = learner.family.row_losses(learner.model, longer).detach()
    assert (padded_R - together_R).abs().max() <= 1e-9


def test_preflight_passes(family: Path) -> None:
    learner = learner_of(family, some_rows(), rule(), kind="side")
    report = preflight(synthetic_subject(learner))
    assert not report.reasons and report.max_relative_error <= EXACT  # type: ignore[operator]


def test_preflight_passes_at_the_start_where_only_one_weight_moves(tiny_llava: Path) -> None:
    learner = learner_of(tiny_llava, some_rows(), PRUNED, kind="side")
    start = attach(load_float64(tiny_llava).model, trainable(kind="side"), learner.family, seed=1)
    learner.trainable.assign(TrainableLayers.of(start).flat())
    moving = {
        name
        for name, where in learner.trainable.slices().items()
        if gradients_of(learner).stacked()[:, where].any()
    }
    assert len(moving) == 1 and moving.pop().endswith("side.up.weight")
    assert not preflight(synthetic_subject(learner)).reasons


def test_a_gate_that_is_no_linear_layer_is_refused(tiny_llava: Path) -> None:
    """Negative control: a weight that multiplies as it is would be outside every norm."""

    class RawGate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, ones: Tensor) -> Tensor:
            return ones * self.weight

    def raw(model: nn.Module) -> None:
        model.model.language_model.side.gates[0] = RawGate()  # type: ignore[union-attr, index]

    with pytest.raises(ValueError, match=r"side\.gates\.0\.weight is trainable but not part of a linear"):
        learner_of(tiny_llava, some_rows(), ALL, kind="side", prepare=raw)


def test_a_side_network_that_looks_at_other_rows_is_caught(
    tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: normalising over the batch as well couples its rows."""

    def leaking(values: Tensor) -> Tensor:
        return values / values.square().mean().sqrt()

    monkeypatch.setattr(side_network, "normalised", leaking)
    learner = learner_of(tiny_llava, some_rows(), PRUNED, kind="side")
    reasons = "; ".join(preflight(synthetic_subject(learner)).reasons)
    assert "other units of its batch" in reasons


def test_without_privacy_the_gradient_is_the_same_where_the_backbone_runs_again(tiny_llava: Path) -> None:
    plain, again = (
        learner_of(tiny_llava, some_rows(), PRUNED, kind="side", recompute_activations=forgets)
        for forgets in (False, True)
    )
    units = plain.encoded.rows_by_unit()
    expected_P, found_P = (plain_gradient_sum(learner, units) for learner in (plain, again))
    assert (found_P - expected_P).norm() <= 1e-12 * expected_P.norm() and expected_P.any()


def test_recomputed_blocks_give_the_same_gradients_from_fewer_bytes(tiny_llava: Path) -> None:
    plain = learner_of(tiny_llava, some_rows(), PRUNED, kind="side")
    again = learner_of(tiny_llava, some_rows(), PRUNED, kind="side", recompute_activations=True)
    runs: list[object] = []
    for learner in (plain, again):
        for name, layer in learner.model.named_modules():
            if name.endswith(("side.blocks.0", "side.blocks.1", "language_model.layers.0.mlp")):
                target = layer.query if hasattr(layer, "query") else layer
                target.register_forward_pre_hook(lambda *given: runs.append(given))
    expected_UP = gradients_of(plain).stacked()
    once = len(runs)
    found_UP = gradients_of(again).stacked()
    assert len(runs) == 3 * once + 1, (
        "all ran again, and the first of two blocks, whose activations are forgotten, twice"
    )
    assert (found_UP - expected_UP).norm() <= 1e-12 * expected_UP.norm()
