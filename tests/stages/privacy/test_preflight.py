"""Preflight passes what is exact and names what is not."""

import pytest
import torch
from torch import Tensor, nn

from stages.privacy.preflight import Subject, preflight, structural_faults
from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import TrainableLayers

X = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """Two linear layers, and one of the faults."""

    def __init__(self, fault: str = "none") -> None:
        super().__init__()
        self.fault = fault
        self.first, self.second, self.still = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.still.requires_grad_(fault == "still")
        self.extra: nn.Module = nn.Identity()
        if fault == "batch norm":
            self.extra = nn.BatchNorm1d(4, affine=False)
        if fault == "dropout":
            self.extra = nn.Dropout(0.5)

    def losses(self, rows: list[int]) -> Tensor:
        x = X[rows]
        hidden = self.extra(torch.tanh(self.first(x)))
        if self.fault == "coupled":
            hidden = hidden - hidden.mean(dim=0, keepdim=True) / 2
        if self.fault == "bypassed":
            hidden = nn.functional.linear(hidden, self.first.weight)
        out = self.second(hidden)
        if self.fault == "still":
            out = out + 0 * self.still(hidden)
        losses = out.pow(2).sum(dim=(1, 2))
        return losses.mean()[None] if self.fault == "averaged" else losses


def subject(model: Small, first: str = "row") -> Subject:
    return Subject(
        model,
        TrainableLayers.of(model, lambda layer: first),
        [[0, 1], [2]],
        lambda rows: model.losses(list(rows)),
        lambda rows, owners: Segments.of(owners[-1] + 1, row=owners),
    )


def test_an_exact_model_passes_with_its_measurements():
    model = Small()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = preflight(subject(model))
    assert report.reasons == () and report.to_json()["verdict"] == "pass"
    assert report.max_relative_error is not None and report.max_relative_error < 1e-5
    assert report.max_contribution_over_clip == pytest.approx(1.0)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("batch norm", "extra is batch normalisation in training mode"),
        ("dropout", "extra drops at random with probability 0.5"),
        ("coupled", "with the other units of its batch"),
        ("bypassed", "first.weight is reached by the gradient outside its layer"),
        ("still", "still.weight never moves"),
        ("averaged", "not one a row"),
    ],
)
def test_a_fault_is_named(fault, reason):
    report = preflight(subject(Small(fault)))
    assert report.to_json()["verdict"] == "fail"
    assert any(reason in found for found in report.reasons), report.reasons


def test_an_axis_that_the_batch_does_not_know_is_a_reason():
    report = preflight(subject(Small(), first="tile"))
    assert "counts by tile, which this batch says nothing of" in report.reasons[0]


def test_dora_and_trainable_tokens_are_named(tiny_llava):
    from peft import LoraConfig, get_peft_model

    from stages.vlm.family import load

    with pytest.warns(FutureWarning):
        dora = get_peft_model(
            load(tiny_llava).model, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
        )
    assert any("is a DoRA layer" in fault for fault in structural_faults(dora.eval()))
    with pytest.warns(FutureWarning):
        tokens = get_peft_model(
            load(tiny_llava).model,
            LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1]}),
        )
    assert any("trains token indices" in fault for fault in structural_faults(tokens.eval()))
