"""The side network: stored and found again, what a step keeps of the backbone, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import learner_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import ALL, load_float64, picture, rows, trainable
from stages.evaluation.answer import greedy_tokens, prompt_of
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.encoded import Batch, collate
from stages.records.token_rows import IGNORED
from stages.trainable.adapters import attach, load_adapter, save_adapter
from stages.trainable.settings import SideSettings
from stages.trainable.side import CONFIG, WEIGHTS, side_of
from stages.trainable.side_block import SideBlock, seen_places
from stages.training.allocations import Allocations
from stages.vlm.encoder import encode_set
from stages.vlm.family import load
from stages.vlm.loaded import Loaded

TESTS = Path(__file__).resolve().parents[2]


def tuned(path: Path, **side: int) -> Loaded:
    """Return a model in float64 with a side network away from its start."""
    loaded = load_float64(path)
    settings = SideSettings(**({"reduction": 4, "every": 1} | side))
    attach(loaded.model, trainable(kind="side", side=settings), loaded.family, seed=1)
    layers = TrainableLayers.of(loaded.model)
    drawn_P = torch.randn(layers.flat().shape, generator=torch.Generator().manual_seed(3)).double()
    layers.assign(0.3 * drawn_P)
    return loaded


@pytest.fixture(scope="module")
def stored(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("side")
    save_adapter(tuned(tiny_llava).model, path, base=str(tiny_llava), revision=None)
    return path


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from models import ALL, load_float64, picture
from stages.evaluation.answer import answer
from stages.trainable.adapters import load_adapter
loaded = load_float64(Path(sys.argv[1]))
tuned = replace(loaded, model=load_adapter(loaded.model, Path(sys.argv[2]), loaded.family))
for seed in range(3):
    print(repr(answer(tuned, picture(seed), "which digit is this ?", ALL)))
"""


def test_a_stored_side_network_answers_the_same_in_a_fresh_process(tiny_llava: Path, stored: Path) -> None:
    from stages.evaluation.answer import answer

    assert {file.name for file in stored.iterdir()} == {CONFIG, WEIGHTS}
    run = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tiny_llava), str(stored)]
    found = subprocess.run(
        run, capture_output=True, text=True, check=True, env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    )
    here, frozen = tuned(tiny_llava), load_float64(tiny_llava)
    asked = [(picture(seed), "which digit is this ?", ALL) for seed in range(3)]
    assert found.stdout.splitlines() == [repr(answer(here, *each)) for each in asked]
    assert found.stdout.splitlines() != [repr(answer(frozen, *each)) for each in asked]


def say(name: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        about = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(about | {name: value}))

    return change


def put(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def written(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return written


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 99), "cannot be read"),
        (lambda folder: (folder / CONFIG).write_text("[1"), "is not valid JSON"),
        (say("version", 2), "does not describe a side network of version 1"),
        (say("reduction", "4"), "does not describe a side network of version 1"),
        (say("width", 64), "whose language model has width 64; this one has 32"),
        (say("layers", 3), "whose language model has layers 3; this one has 2"),
        (say("reduction", 2), "does not fit the configuration beside it: weight 'blocks.0.key.weight'"),
        (put(lambda weights: weights.pop("up.weight")), "weight 'up.weight' is wrong"),
        (put(lambda weights: weights.update(more=torch.zeros(1))), "weight 'more' is wrong"),
        (put(lambda weights: weights["up.weight"].fill_(torch.nan)), "not finite, in weight 'up.weight'"),
    ],
)
def test_a_broken_store_is_refused_and_leaves_the_model_as_it_was(
    tiny_llava: Path, stored: Path, tmp_path: Path, fault: Callable[[Path], Any], sentence: str
) -> None:
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((stored / name).read_bytes())
    fault(tmp_path)
    loaded = load(tiny_llava)
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        load_adapter(loaded.model, tmp_path, loaded.family)
    assert side_of(loaded.model) is None


def test_a_directory_with_two_kinds_of_adapter_is_refused(
    tiny_llava: Path, stored: Path, tmp_path: Path
) -> None:
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((stored / name).read_bytes())
    (tmp_path / "adapter_config.json").write_text("{}")
    loaded = load(tiny_llava)
    with pytest.raises(ValueError, match="holds more than one adapter"):
        load_adapter(loaded.model, tmp_path, loaded.family)


@pytest.mark.parametrize("reduction", [3, 16, 32, 64])
def test_a_width_that_holds_nothing_is_refused(tiny_llava: Path, reduction: int) -> None:
    with pytest.raises(ValueError, match=f"trainable.side.reduction {reduction} makes a side network of"):
        tuned(tiny_llava, reduction=reduction)


def test_a_second_side_network_is_refused(tiny_llava: Path) -> None:
    loaded = tuned(tiny_llava)
    with pytest.raises(ValueError, match="has a side network already"):
        attach(loaded.model, trainable(kind="side"), loaded.family, seed=1)


def test_every_second_layer_is_tapped_and_the_last_one_always(tiny_llava: Path) -> None:
    network = side_of(tuned(tiny_llava, every=2).model)
    assert network is not None and network.shape.tapped() == [1]
    assert (len(network.downs), len(network.blocks)) == (2, 1)


def test_the_seed_decides_the_start_and_the_global_stream_goes_on(tiny_llava: Path) -> None:
    starts = []
    for seed in (1, 1, 2):
        loaded = load(tiny_llava)
        torch.manual_seed(5)
        attach(loaded.model, trainable(kind="side"), loaded.family, seed=seed)
        starts.append(TrainableLayers.of(loaded.model).flat())
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def prompt_inputs(loaded: Loaded, prompt: Any, features: Tensor) -> dict[str, Any]:
    ids = torch.tensor([prompt.input_ids])
    batch = Batch(
        ids,
        torch.ones_like(ids),
        torch.tensor(prompt.position_ids)[:, None],
        torch.full_like(ids, IGNORED),
        (features,),
    )
    return loaded.family.inputs(loaded.model, batch)  # type: ignore[no-any-return]


def generate(loaded: Loaded, inputs: dict[str, Any], **more: Any) -> list[int]:
    out = loaded.model.generate(
        **inputs,
        **more,
        max_new_tokens=4,
        do_sample=False,
        eos_token_id=sorted(loaded.end_marks()),
        pad_token_id=0,
        suppress_tokens=[loaded.model.config.image_token_id],
    )
    return out[0, inputs["input_ids"].shape[1] :].tolist()  # type: ignore[no-any-return]


def test_generate_without_a_cache_says_what_reading_again_says(tiny_llava: Path) -> None:
    loaded = tuned(tiny_llava)
    prompt, seen = prompt_of(loaded, picture(0), "which digit is this ?", ALL)
    inputs = prompt_inputs(loaded, prompt, seen.features_SD)
    found = greedy_tokens(loaded, prompt, seen, 4)
    assert len(found) > 1
    assert generate(loaded, inputs, use_cache=False) == found


def test_generate_with_a_cache_is_refused_with_the_way_out(tiny_llava: Path) -> None:
    loaded = tuned(tiny_llava)
    prompt, seen = prompt_of(loaded, picture(0), "which digit is this ?", ALL)
    with pytest.raises(ValueError, match="keeps no cache of earlier tokens: pass use_cache=False"):
        generate(loaded, prompt_inputs(loaded, prompt, seen.features_SD))


def test_padding_on_the_left_changes_nothing(tiny_llava: Path) -> None:
    """Generation pads there; the mask then hides padding, and positions count from any place."""
    loaded = tuned(tiny_llava)
    ids = torch.arange(8, 16)[None]
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.int64), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 3, dtype=torch.int64), torch.ones_like(ids)], dim=1)
    place = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        found = loaded.model(input_ids=padded, attention_mask=mask, position_ids=place).logits
        unmasked = loaded.model(input_ids=padded, position_ids=torch.arange(11)[None]).logits
    assert torch.allclose(found[:, 3:], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(unmasked[:, 3:], expected, rtol=0, atol=1e-3), "negative control"


def test_a_place_sees_what_comes_before_it_and_no_padding() -> None:
    torch.manual_seed(0)
    block, given_RLW = SideBlock(8).double(), torch.randn(2, 6, 8, dtype=torch.float64)
    is_there_RL = torch.ones(2, 6)
    is_there_RL[1, :2] = 0
    changed_RLW = given_RLW.clone()
    changed_RLW[0, 3] += 1
    changed_RLW[1, 1] += 1
    moved_RLW = block(changed_RLW, seen_places(is_there_RL)) - block(given_RLW, seen_places(is_there_RL))
    moved_RL = moved_RLW.abs().sum(dim=2) > 1e-12
    assert moved_RL.tolist() == [[False] * 3 + [True] * 3, [False, True] + [False] * 4]
    assert seen_places(torch.ones(2, 6)) is None and seen_places(is_there_RL.flip(1)) is None


def kept_bytes(learner: Any, rows_at_once: range) -> int:
    """Return the bytes alive between forward and backward pass."""
    learner.losses(rows_at_once)
    with Allocations(learner.model) as allocations:
        losses_R = learner.losses(rows_at_once)
        live: int = allocations.live
    assert losses_R.requires_grad
    return live


def test_a_step_keeps_the_tapped_layers_outputs_and_else_only_what_is_narrow(tiny_llava: Path) -> None:
    given = rows(8)
    beside = learner_of(tiny_llava, given, ALL, kind="side")
    shape = side_of(beside.model).shape  # type: ignore[union-attr]
    places = collate(beside.encoded, range(8)).input_ids_RL.numel()
    taps = len(shape.tapped())
    wide = 8 * places * shape.width * (taps + 1)
    narrow = 8 * places * shape.narrow * (13 * taps + 3)
    features = sum(8 * feature.numel() for feature in collate(beside.encoded, range(8)).features)
    kept = kept_bytes(beside, range(8))
    assert wide < kept <= wide + narrow + features + 0.1 * wide
    forgetful = learner_of(tiny_llava, given, ALL, kind="side", recompute_activations=True)
    one = wide // (taps + 1)
    """What enters the language model: with it, the backbone is called again."""
    assert (
        kept_bytes(forgetful, range(8))
        <= one + 8 * places * shape.narrow * (taps + 1) + features + 0.12 * wide
    )
    adapted = learner_of(tiny_llava, given, ALL)
    assert kept_bytes(adapted, range(8)) > 2 * kept, "negative control: back through the language model"


def test_nothing_is_kept_where_no_backward_pass_follows(tiny_llava: Path) -> None:
    learner = learner_of(tiny_llava, rows(8), ALL, kind="side")
    widest: list[int] = []

    def heard(layer: nn.Module, args: Any, output: Any) -> None:
        widest.append(len(side_of(learner.model)._heard))  # type: ignore[union-attr]

    for layer in learner.model.model.language_model.layers:  # type: ignore[union-attr]
        layer.register_forward_hook(heard)
    with torch.no_grad():
        learner.losses(range(8))
    assert widest == [0, 0], "what was heard has been taken in at once"
    learner.losses(range(8))
    assert widest[2:] == [2, 3], "negative control: with gradients it waits for the backbone's end"


def test_the_frozen_model_answers_first_and_then_the_tuned_one(tiny_llava: Path, stored: Path) -> None:
    """Stages evaluate and canaries look at the backbone before they load what learned, in place."""
    loaded = load_float64(tiny_llava)
    batch = collate(encode_set(loaded, rows(2), ALL), [0, 1])
    before_R = loaded.family.row_losses(loaded.model, batch)
    after = load_adapter(loaded.model, stored, loaded.family)
    again_R = tuned(tiny_llava).family.row_losses(tuned(tiny_llava).model, batch)
    assert torch.allclose(loaded.family.row_losses(after, batch), again_R, rtol=0, atol=1e-12)
    assert not torch.allclose(before_R, again_R)
