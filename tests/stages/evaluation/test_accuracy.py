"""Accuracy is what counting by hand gives, and its interval is scipy's."""

from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest

from models import ALL, rows
from stages.evaluation.accuracy import Accuracy, accuracy_by_kind, wilson_interval
from stages.records.encoded import collate
from stages.vlm.encoder import encode_set
from stages.vlm.family import load


@pytest.mark.parametrize(
    ("correct", "count"), [(0, 1), (0, 1012), (1, 1), (37, 100), (999, 1000), (500, 500)]
)
def test_the_interval_is_scipys_wilson_interval(correct: int, count: int) -> None:
    expected = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_rows_say_nothing() -> None:
    assert Accuracy(0, 0).to_json() == {"correct": 0, "rows": 0, "accuracy": None, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_rows_are_counted_by_kind_whatever_the_micro_batch(tiny_llava: Path, micro_batch: int) -> None:
    """A family that answers every other row right: the counts are then known."""
    loaded, given = load(tiny_llava), rows(units=3, rows_per_unit=3)
    encoded = encode_set(loaded, given, ALL)
    asked = iter(range(len(given)))

    class EveryOther:
        @staticmethod
        def rows_answered(model: torch.nn.Module, batch: object) -> torch.Tensor:
            assert hasattr(batch, "input_ids_RL")
            return torch.tensor([next(asked) % 2 == 0 for _ in batch.input_ids_RL])

    found = accuracy_by_kind("test", loaded.model, EveryOther, encoded, micro_batch)
    expected = {
        kind: [index % 2 == 0 for index, row in enumerate(given) if row.kind == kind]
        for kind in encoded.kinds
    }
    assert {kind: (found[kind].correct, found[kind].rows) for kind in encoded.kinds} == {
        kind: (sum(right), len(right)) for kind, right in expected.items()
    }
    assert (found["all"].correct, found["all"].rows) == (5, 9)


def test_one_wrong_token_makes_a_row_wrong(tiny_llava: Path) -> None:
    """The model's own greedy tokens as labels are all right; any one of them changed is wrong."""
    loaded = load(tiny_llava)
    batch = collate(encode_set(loaded, rows(units=2), ALL), [0, 1])
    logits_RAV, labels_RA = loaded.family.learned_logits(loaded.model, batch)
    best_RA, learned_RL = logits_RAV.argmax(dim=-1), batch.next_labels_RL != -100
    batch.next_labels_RL[learned_RL] = best_RA[labels_RA != -100]
    assert loaded.family.rows_answered(loaded.model, batch).tolist() == [True, True]
    place = int(learned_RL[1].nonzero()[-1])
    batch.next_labels_RL[1, place] += 1
    assert loaded.family.rows_answered(loaded.model, batch).tolist() == [True, False]
