"""On a CUDA device every family sees what it sees on the CPU, and answers as it does there."""

from pathlib import Path

import pytest
import torch

from benchmarks.tiny_directories import TINY, write_directory
from models import speed
from stages.core.speed import use
from stages.records.encoded import collate
from stages.vlm.encoder import encode_image, encode_set
from stages.vlm.family import load
from stages.vlm.selection import Rule
from tests.stages.vlm.test_families import SELECTS, row

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.fixture(scope="module", autouse=True)
def settled():
    """Settle CUDA as every stage does, and leave the process as it was."""
    use(speed(device="cuda"))
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_family_on_a_gpu(name: str, tmp_path: Path) -> None:
    path = write_directory(name, tmp_path / "model")
    here, there = load(path), load(path, device="cuda")
    given = [row(0), row(1), row(3, 0, "odd or even ?", "even")]
    for select in SELECTS:
        rule = Rule(select=select, merge="cluster", layer=1, dominant=4, contextual=2)  # type: ignore[arg-type]
        expected, found = encode_set(here, given, rule), encode_set(there, given, rule)
        assert found.rows == expected.rows, select
        for one, other in zip(found.features, expected.features, strict=True):
            assert torch.allclose(one, other, atol=1e-4), (select, (one - other).abs().max())
        again = encode_image(there, given[1].images[0], rule)
        assert torch.equal(again.features_SD, found.features[1]), "the same bits every time"
        with torch.no_grad():
            losses = there.family.row_losses(there.model, collate(found, range(3)).to("cuda"))
            slow = here.family.row_losses(here.model, collate(expected, range(3)))
        assert torch.allclose(losses.cpu(), slow, atol=1e-3)


@pytest.mark.parametrize("name", ["LLaVA (CLIP)", "Qwen2.5-VL", "Gemma3"])
def test_bfloat16_features_are_kept_as_such(name: str, tmp_path: Path) -> None:
    loaded = load(write_directory(name, tmp_path / "model"), device="cuda", precision="bfloat16")
    rule = Rule(select="dominant_contextual", merge="cluster", layer=1, dominant=4, contextual=2)
    encoded = encode_set(loaded, [row(0), row(1)], rule)
    assert encoded.features.dtype == torch.bfloat16
    with torch.no_grad():
        losses = loaded.family.row_losses(loaded.model, collate(encoded, range(2)).to("cuda"))
    assert losses.isfinite().all()
