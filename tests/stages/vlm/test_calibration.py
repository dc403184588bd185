"""What profile and calibrate measure, against slow references, and the pictures that they draw."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from models import ALL, PRUNED, load_float64, rows, trainable
from stages.privacy.kept_gradients import longest_ghost
from stages.records.encoded import collate
from stages.records.token_rows import IGNORED
from stages.vlm.fidelity import Sample
from stages.vlm.frontier import Frontier, frontier_table
from stages.vlm.importance import agreement, concentration, disturbed, stability
from stages.vlm.loaded import Loaded
from stages.vlm.pictures import FATES, Panelled, heat
from stages.vlm.seen import Frame
from stages.vlm.selection import Rule
from stages.vlm.sheets import contact_sheet, layer_sheet
from stages.vlm.step_work import LinearLayer, StepWork

LAYERS = (0, 1, 2)


@pytest.fixture(scope="module")
def sample(tiny_llava: Path) -> Sample:
    return Sample.of(load_float64(tiny_llava), rows(5, rows_per_unit=2), LAYERS, 3)


def test_divergence_is_that_of_the_answers_words(sample: Sample) -> None:
    pruned, whole = sample.encode(PRUNED), sample.encode(ALL)
    loaded: Loaded = sample.loaded
    total, words = 0.0, 0
    for row in range(len(sample.rows)):
        with torch.no_grad():
            given, labels = loaded.family.learned_logits(loaded.model, collate(pruned, [row]))
            expected, _ = loaded.family.learned_logits(loaded.model, collate(whole, [row]))
        for place in range(labels.shape[1]):
            assert labels[0, place] != IGNORED
            p, q = expected[0, place].softmax(-1), given[0, place].softmax(-1)
            total += float((p * (p / q).log()).sum())
            words += 1
    assert sample.divergence(pruned, whole) == pytest.approx(total / words, rel=1e-9)
    assert sample.divergence(whole, whole) == 0.0


def test_the_frontier_compares_with_all_tokens(sample: Sample) -> None:
    work = StepWork([LinearLayer(8, 8, passes=2, learns=True)], 48)
    done: list[int] = []
    frontier = Frontier.of(sample, [PRUNED, ALL], work, done.append)
    (found, same), full = frontier.found, frontier.full
    assert done == [*range(1, 9)] and sample.batches() == 4, "each rule sees each batch once"
    assert {key: same[key] for key in full} == full and same["divergence"] == 0.0
    whole, pruned = sample.encode(ALL), sample.encode(PRUNED)
    assert found["divergence"] == pytest.approx(sample.divergence(pruned, whole), rel=1e-12)
    for key, value in asdict(sample.measure(PRUNED)).items():
        assert found[key] == pytest.approx(value, rel=1e-12)
    lengths = [len(row.input_ids) for row in whole.rows]
    assert sorted(frontier.longest) == list(range(len(sample.rows)))
    assert [lengths[row] for row in frontier.longest] == sorted(lengths, reverse=True)
    assert found["kept"] == 9 and full["kept"] == 64
    assert full["row_tokens"] - found["row_tokens"] == 64 - 9
    assert 0 < found["step"] < 1
    assert found["step"] == pytest.approx(
        work.multiplications(found["row_tokens"]) / work.multiplications(full["row_tokens"])
    )
    head, first, last = frontier_table(full, [found]).splitlines()
    assert head.split(",")[:3] == ["select", "merge", "kept"]
    assert first.startswith("dominant_contextual,cluster,9,") and last.startswith("all,none,64,1.000000,")


def norm_and_sum(tokens: int, given: int, made: int) -> int:
    if tokens <= longest_ghost(torch.empty(made, given)):
        return tokens**2 * (given + made) + tokens * given * made
    return tokens * given * made + 2 * given * made


def linear(width: int, hidden: int) -> int:
    """Return the weights of a tiny model's language layer: q, k, v, o and a gated perceptron."""
    return 4 * width * width + 3 * width * hidden


def test_a_norm_is_counted_the_way_the_engine_takes_it(sample: Sample) -> None:
    model, family = sample.loaded.model, sample.loaded.family
    text = model.config.text_config
    width, hidden, layers = text.hidden_size, text.intermediate_size, text.num_hidden_layers
    assert text.num_key_value_heads == text.num_attention_heads
    work = StepWork.of(model, family, trainable(rank=4, targets=("q_proj",)))
    for tokens in (1, 5, 500):
        expected = 2 * tokens * linear(width, hidden) + 6 * tokens**2 * width
        for given, made in ((width, 4), (4, width)):
            expected += 2 * tokens * given * made + norm_and_sum(tokens, given, made)
        assert work.multiplications(tokens) == layers * expected


def test_beside_a_side_network_the_language_model_runs_forward_only(sample: Sample) -> None:
    model, family = sample.loaded.model, sample.loaded.family
    text = model.config.text_config
    width, hidden, layers, narrow = (
        text.hidden_size,
        text.intermediate_size,
        text.num_hidden_layers,
        text.hidden_size // 4,
    )
    work = StepWork.of(model, family, trainable(kind="side"))
    for tokens in (1, 5, 500):
        expected = layers * (tokens * linear(width, hidden) + 2 * tokens**2 * width)
        expected += (layers + 1) * (tokens * width * narrow + norm_and_sum(tokens, width, narrow))
        expected += 2 * tokens * narrow * width + norm_and_sum(tokens, narrow, width)
        block = 6 * tokens**2 * narrow
        for given, made in [(narrow, narrow)] * 4 + [(narrow, 2 * narrow), (2 * narrow, narrow)]:
            block += 2 * tokens * given * made + norm_and_sum(tokens, given, made)
        assert work.multiplications(tokens) == expected + layers * block


def test_concentration_and_agreement_against_plain_sums() -> None:
    scores = torch.tensor([0.5, 0.1, 0.3, 0.1])
    assert concentration(scores, 2) == pytest.approx(0.8)
    assert concentration(scores, 9) == pytest.approx(1.0)
    assert concentration(torch.zeros(4), 2) == 0.0
    assert agreement(scores, scores.flip(0), 1) == 0.0
    assert agreement(scores, scores, 3) == 1.0


def test_a_layer_is_stable_where_disturbed_images_are_judged_alike(sample: Sample) -> None:
    images, seen = sample.images[:2], [seen for seen, _ in sample.seen[:2]]
    found = stability(sample.loaded, images, seen, LAYERS, 6)
    assert set(found) == set(LAYERS) and all(0 < share <= 1 for share in found.values())
    assert len(set(images[0:1]) | set(disturbed(images[0]))) == 4, "each disturbance changes the image"
    others = stability(sample.loaded, images, seen[::-1], LAYERS, 6)
    assert sum(others.values()) < sum(found.values()), "negative control: another image's judgement"


@pytest.mark.parametrize("select", ["all", "dominant_contextual", "grid", "random"])
@pytest.mark.parametrize("merge", ["cluster", "none"])
def test_the_fate_of_every_patch_is_told(sample: Sample, select: str, merge: str) -> None:
    rule = Rule(select=select, merge=merge, layer=1, dominant=6, contextual=3)  # type: ignore[arg-type]
    seen, _ = sample.seen[0]
    fates = rule.fates(seen)
    _, source = rule.keep(seen)
    counts = {fate: fates.count(fate) for fate in FATES}
    assert len(fates) == 64
    if select == "all":
        assert counts["kept"] == 64
    elif select == "grid":
        assert counts["centre"] == len(source) and counts["merged"] == 64 - len(source)
    elif merge == "none":
        assert (counts["kept"], counts["dropped"]) == (9, 55)
    else:
        assert (counts["kept"], counts["centre"], counts["merged"]) == (6, 3, 55)
        assert [fates[patch] for patch in source.tolist()] == ["kept"] * 6 + ["centre"] * 3


def test_sheets_show_every_image_and_rule(sample: Sample) -> None:
    layers = layer_sheet(sample, LAYERS, 2)
    patches = contact_sheet(sample, [PRUNED, ALL], 2)
    assert layers.width > 4 * 144 and 2 * 144 < layers.height < 2 * 144 + 80
    assert patches.width > 3 * 144 and patches.height == layers.height


def test_colours_lie_over_the_patches_they_mean() -> None:
    picture = Image.new("RGB", (100, 50), "white")
    frame = Frame("", (4,), (), ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)))
    drawn = Panelled(picture, ((1, 1), (1, 1)), frame).drawn([(255, 0, 0, 255), (0, 0, 255, 255)].__getitem__)
    assert drawn.size == (144, 72)
    assert drawn.getpixel((10, 30)) == (255, 0, 0, 255) and drawn.getpixel((130, 30)) == (0, 0, 255, 255)
    whole = Panelled(picture, ((1, 2), (1, 1)), Frame("", (3,))).drawn(heat([0.1, 0.9, 0.5]))
    assert whole.width == 2 * 144 + 4, "pictures of the whole image stand beside each other"
    assert whole.getpixel((100, 30))[0] > whole.getpixel((10, 30))[0], "the more important patch is brighter"
