"""Every family: all tokens kept are the plain model; pruned rows are sound; nothing hangs on the batch."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.tiny_directories import TINY, write_directory
from models import load_float64
from stages.evaluation.answer import greedy_tokens, prompt_of
from stages.records.encoded import EncodedSet, collate
from stages.records.features import Features
from stages.records.row import IMAGE, Message, Row
from stages.records.token_rows import IGNORED
from stages.vlm import attention
from stages.vlm.encoder import encode_image, encode_set, prepare
from stages.vlm.loaded import Loaded
from stages.vlm.messages import messages_of
from stages.vlm.selection import Rule

SHAPES = ((32, 32), (48, 32), (32, 64))
MOST_IMAGES = {"llava_onevision": 1}
"""Most images of a row, where it is not two."""
SELECTS = ("dominant_contextual", "diverse", "reconstruct", "grid", "random")
ALL = Rule(select="all", merge="none", layer=0, dominant=0, contextual=0)


def rule(select: str = "dominant_contextual", merge: str = "cluster") -> Rule:
    return Rule(select=select, merge=merge, layer=1, dominant=4, contextual=2)  # type: ignore[arg-type]


def picture(seed: int) -> bytes:
    width, height = SHAPES[seed % len(SHAPES)]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def row(seed: int, images: int = 1, question: str = "which digit is this ?", answer: str = "seven") -> Row:
    return Row(
        id=f"row {seed}",
        unit=f"unit {seed}",
        kind="digit",
        messages=(Message("user", IMAGE * images + question), Message("assistant", answer)),
        images=tuple(picture(10 * seed + image) for image in range(images)),
    )


def some_rows(loaded: Loaded) -> list[Row]:
    """Return rows with one image, with two where the family allows it, and with none."""
    most = MOST_IMAGES.get(loaded.model.config.model_type, 2)
    return [row(0), row(1, most, "odd or even ?", "odd"), row(2), row(3, 0, "odd or even ?", "even")]


@pytest.fixture(scope="module", params=sorted(TINY))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    name: str = request.param
    path: Path = tmp_path_factory.mktemp("family")
    return load_float64(write_directory(name, path / "model"))


def opened(images: Sequence[bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(image)).convert("RGB") for image in images]


def processed(loaded: Loaded, given: Row) -> dict[str, Any]:
    """Return what the family's own processor makes of a row, answer included."""
    processor, kind = loaded.processor, loaded.model.config.model_type
    images = {"images": [opened(given.images)]} if given.images else {}
    if kind == "paligemma":
        question = given.messages[0].content.replace(IMAGE, "")
        text = processor.image_token * len(given.images) + question
        made = processor(text=[text], suffix=[given.messages[1].content], return_tensors="np", **images)
        made.pop("labels")
        inputs = {name: torch.from_numpy(value) for name, value in made.items()}
    else:
        text = processor.apply_chat_template(messages_of(given.messages), tokenize=False)
        begin = processor.tokenizer.bos_token
        again = not (begin and text.startswith(begin))
        inputs = processor(text=[text], return_tensors="pt", add_special_tokens=again, **images)
    inputs = dict(inputs)
    if kind in ("llava", "llava_next", "llava_onevision", "idefics3", "smolvlm"):
        inputs.pop("token_type_ids", None)
    return {
        name: value.double() if value.is_floating_point() else value
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }


def answers(loaded: Loaded, encoded: EncodedSet, rows: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return loaded.family.learned_logits(loaded.model, collate(encoded, rows))[0]


def test_keeping_all_tokens_equals_the_plain_forward(loaded: Loaded) -> None:
    for given in (row(0), row(1), row(2), row(1, MOST_IMAGES.get(loaded.model.config.model_type, 2))):
        plain = processed(loaded, given)
        encoded = encode_set(loaded, [given], ALL)
        assert list(encoded.rows[0].input_ids) == plain["input_ids"][0].tolist()
        with torch.no_grad():
            expected = loaded.model(**plain, use_cache=False).logits[0]
        places = [place for place, label in enumerate(encoded.rows[0].labels[1:]) if label != IGNORED]
        found = answers(loaded, encoded, [0])[0]
        assert torch.allclose(found, expected[places], rtol=0, atol=1e-9), (
            (found - expected[places]).abs().max()
        )


def test_the_answer_and_its_end_mark_are_learned_and_nothing_else(loaded: Loaded) -> None:
    encoded = encode_set(loaded, [row(0)], ALL)
    learned = [label for label in encoded.rows[0].labels if label != IGNORED]
    assert learned[-1] in loaded.end_marks()
    assert loaded.processor.tokenizer.decode(learned[:-1]).split() == ["seven"]


@pytest.mark.parametrize("select", SELECTS)
def test_pruned_rows_have_as_many_slots_as_features_at_the_positions_of_the_whole(
    loaded: Loaded, select: str
) -> None:
    given = some_rows(loaded)
    whole, pruned = encode_set(loaded, given, ALL), encode_set(loaded, given, rule(select))
    slot = whole.image_token_id
    assert pruned.features.slots_I.max() <= 6 < whole.features.slots_I.min()
    for before, after in zip(whole.rows, pruned.rows, strict=True):
        assert after.input_ids.count(slot) == sum(pruned.features.slots_I[list(after.images)])
        assert [t for t in after.input_ids if t != slot] == [t for t in before.input_ids if t != slot]
        assert [t for t in after.labels if t != IGNORED] == [t for t in before.labels if t != IGNORED]
        placed = set(zip(before.input_ids, *before.position_ids, strict=True))
        assert set(zip(after.input_ids, *after.position_ids, strict=True)) <= placed
        texts = [
            [place for token, *place in zip(one.input_ids, *one.position_ids, strict=True) if token != slot]
            for one in (before, after)
        ]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("select", ["all", "dominant_contextual"])
def test_the_answer_moves_when_a_kept_visual_token_moves(loaded: Loaded, select: str) -> None:
    """Fails without an attention mask: transformers then cuts attention at every gap of positions."""
    chosen = ALL if select == "all" else rule()
    for given in (row(1), row(2, MOST_IMAGES.get(loaded.model.config.model_type, 2))):
        encoded = encode_set(loaded, [given], chosen)
        before = answers(loaded, encoded, [0])
        for image in range(len(given.images)):
            for slot in (0, len(encoded.features[image]) - 1):
                features = [one.clone() for one in encoded.features]
                features[image][slot] += 1.0
                after = answers(loaded, replace(encoded, features=Features.of(features)), [0])
                assert float((after - before).abs().max()) > 1e-9, (image, slot)


@pytest.mark.parametrize("select", ["all", *SELECTS])
def test_an_image_is_the_same_bits_whatever_else_is_encoded(loaded: Loaded, select: str) -> None:
    chosen = ALL if select == "all" else rule(select)
    among = encode_set(loaded, some_rows(loaded), chosen)
    images = [image for given in some_rows(loaded) for image in given.images]
    for image, content in enumerate(images):
        alone = encode_image(loaded, content, chosen)
        assert torch.equal(alone.features_SD, among.features[image])
    others = encode_image(loaded, picture(3), chosen)
    assert not torch.equal(others.features_SD, among.features[0]), "negative control: another image"


def test_losses_of_rows_do_not_depend_on_the_other_rows(loaded: Loaded) -> None:
    encoded = encode_set(loaded, some_rows(loaded), rule())
    with torch.no_grad():
        together = loaded.family.row_losses(loaded.model, collate(encoded, range(4)))
        alone = [loaded.family.row_losses(loaded.model, collate(encoded, [one])) for one in range(4)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-9)
    assert len(set(together.tolist())) == 4


def test_greedy_answers_agree_with_teacher_forcing_and_with_generate(loaded: Loaded) -> None:
    """Hugging Face's ``generate`` starts from the same pruned inputs and its own cache."""
    for seed in range(2):
        asked = "which digit is this ?"
        prompt, seen = prompt_of(loaded, picture(seed), asked, rule())
        found = greedy_tokens(loaded, prompt, seen, 4)
        assert loaded.model.config.image_token_id not in found
        generated = generate(loaded, prompt, seen, 4)
        assert generated == found


def generate(loaded: Loaded, prompt: Any, seen: Any, at_most: int) -> list[int]:
    from stages.records.encoded import Batch

    ids = torch.tensor([prompt.input_ids])
    batch = Batch(
        ids,
        torch.ones_like(ids),
        torch.tensor(prompt.position_ids)[:, None],
        torch.full_like(ids, IGNORED),
        (seen.features_SD,),
    )
    given = loaded.family.inputs(loaded.model, batch)
    if len(prompt.position_ids) > 1:
        given["position_ids"] = torch.cat([torch.arange(ids.shape[1])[None, None], given["position_ids"]])
    out = loaded.model.generate(
        **given,
        max_new_tokens=at_most,
        do_sample=False,
        eos_token_id=sorted(loaded.end_marks()),
        pad_token_id=0,
        suppress_tokens=[loaded.model.config.image_token_id],
    )
    return out[0, ids.shape[1] :].tolist()  # type: ignore[no-any-return]


def test_a_text_only_row_is_the_plain_language_model(loaded: Loaded) -> None:
    given = row(3, 0, "odd or even ?", "even")
    encoded = encode_set(loaded, [given], rule())
    found = answers(loaded, encoded, [0])[0]
    ids = torch.tensor([encoded.rows[0].input_ids])
    beside = loaded.family.beside(loaded.model, collate(encoded, [0]))
    with torch.no_grad():
        expected = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids), **beside).logits[0]
    places = [place for place, label in enumerate(encoded.rows[0].labels[1:]) if label != IGNORED]
    assert torch.allclose(found, expected[places], rtol=0, atol=1e-9)


def test_scores_do_not_depend_on_how_many_queries_are_looked_at_at_once(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(loaded, picture(2))
    layers = loaded.family.scored_layers(loaded.model)
    whole = loaded.family.look(loaded.model, prepared, layers)
    monkeypatch.setattr(attention, "_QUERIES", 3)
    piecewise = loaded.family.look(loaded.model, prepared, layers)
    plain = loaded.family.look(loaded.model, prepared, ())
    assert torch.equal(whole.slots_TD, plain.slots_TD), "watching changes nothing of what is seen"
    assert sum(rows * columns for rows, columns in whole.panels) == len(whole.patch_P)
    for layer in layers:
        assert whole.scores[layer].shape == whole.patch_P.shape
        assert torch.allclose(whole.scores[layer], piecewise.scores[layer], rtol=1e-9)
        assert torch.allclose(whole.metrics[layer].norm(dim=-1), torch.ones(1, dtype=torch.float64))


def test_a_onevision_row_with_several_images_is_refused(tmp_path: Path) -> None:
    """It shows them otherwise than one image, so an image would not be its own features any more."""
    loaded = load_float64(write_directory("LLaVA-OneVision", tmp_path / "model"))
    with pytest.raises(ValueError, match="shows several images of a row otherwise than one"):
        encode_set(loaded, [row(1, 2)], ALL)
