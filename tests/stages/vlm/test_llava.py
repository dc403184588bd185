"""Rows as the language model reads them: tokens, pruned slots, explicit positions and masks."""

import copy
import dataclasses
import io

import pytest
import torch
from PIL import Image

from models import ALL, PRUNED, load_float64, picture, rows
from stages.records.encoded import collate, read_encoded, write_encoded
from stages.records.features import Features
from stages.records.row import Message
from stages.records.token_rows import IGNORED
from stages.vlm.encoder import encode_image, encode_set
from stages.vlm.family import family_of, load
from stages.vlm.seen import Frame, KeptImage
from stages.vlm.tokens import prune_slots, tokenise

MARK = "<image>"


@pytest.fixture(scope="module")
def loaded(tiny_llava):
    return load_float64(tiny_llava)


def frames(row):
    return [Frame(MARK * 64, (64,))] * len(row.images)


def test_unpruned_tokens_are_those_of_the_models_own_processor(loaded):
    for row in rows(3, rows_per_unit=2, images_per_row=2):
        pictures = [Image.open(io.BytesIO(image)) for image in row.images]
        content = [
            {"type": "image"},
            {"type": "image"},
            {"type": "text", "text": row.messages[0].content.replace("<image>", "")},
        ]
        answer = [{"type": "text", "text": row.messages[1].content}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        text = loaded.processor.apply_chat_template(messages, tokenize=False)
        expected = loaded.processor(images=pictures, text=text)["input_ids"][0]
        assert list(tokenise(row, loaded, frames(row)).input_ids) == list(expected)


def test_exactly_the_answer_and_its_end_mark_are_learned(loaded):
    row = rows(1)[0]
    tokens = tokenise(row, loaded, frames(row))
    learned = [label for label in tokens.labels if label != IGNORED]
    assert loaded.processor.tokenizer.decode(learned).split() == [row.messages[1].content, "</s>"]
    assert tokens.labels[-2:] == tokens.input_ids[-2:]


def test_a_template_without_an_end_mark_gets_the_tokenizers(loaded):
    """LLaVA-1.5's template writes a space behind an answer and no mark: nothing would be learned to stop."""
    processor = copy.deepcopy(loaded.processor)
    processor.chat_template = processor.chat_template.replace("+ eos_token", "+ ' '")
    unended = dataclasses.replace(loaded, processor=processor)
    row = rows(1)[0]
    more = (*row.messages, Message("user", "odd or even ?"), Message("assistant", "even"))
    tokens = tokenise(dataclasses.replace(row, messages=more), unended, frames(row))
    assert tokens == tokenise(dataclasses.replace(row, messages=more), loaded, frames(row))
    processor.tokenizer.eos_token = None
    unended.model.generation_config.eos_token_id = None
    try:
        with pytest.raises(ValueError, match="has an end mark for answers"):
            tokenise(row, unended, frames(row))
    finally:
        unended.model.generation_config.eos_token_id = 2


def test_a_row_that_is_longer_than_the_model_reads_is_named(loaded):
    row = rows(1)[0]
    long = dataclasses.replace(row, messages=(Message("user", "odd " * 5000), row.messages[1]), images=())
    with pytest.raises(
        ValueError, match=f"record '{row.id}' has 50.. tokens, and the model has positions for"
    ):
        tokenise(long, loaded, [])


def test_every_assistant_turn_is_learned(loaded):
    row = rows(1)[0]
    more = (*row.messages, Message("user", "odd or even ?"), Message("assistant", "even"))
    tokens = tokenise(dataclasses.replace(row, messages=more), loaded, frames(row))
    learned = [label for label in tokens.labels if label != IGNORED]
    assert loaded.processor.tokenizer.decode(learned).split() == [
        row.messages[1].content,
        "</s>",
        "even",
        "</s>",
    ]


def test_keeping_all_tokens_equals_the_plain_forward_with_pixels(loaded):
    given = rows(3)
    batch = collate(encode_set(loaded, given, ALL), range(3))
    pixels = loaded.processor.image_processor(
        [Image.open(io.BytesIO(row.images[0])) for row in given], return_tensors="pt"
    )["pixel_values"].double()
    with torch.no_grad():
        plain = loaded.model(
            input_ids=batch.input_ids_RL, attention_mask=batch.attention_mask_RL, pixel_values=pixels
        ).logits
        ours, labels = loaded.family.learned_logits(loaded.model, batch)
    for row in range(3):
        places = (batch.next_labels_RL[row] != IGNORED).nonzero()[:, 0]
        assert torch.allclose(ours[row, : len(places)], plain[row, places], atol=1e-9)
        assert labels[row, : len(places)].tolist() == batch.next_labels_RL[row, places].tolist()


def test_row_losses_are_per_row_and_do_not_depend_on_neighbours(loaded):
    encoded = encode_set(loaded, rows(4, rows_per_unit=2), PRUNED)
    with torch.no_grad():
        together = loaded.family.row_losses(loaded.model, collate(encoded, range(8)))
        alone = torch.cat(
            [loaded.family.row_losses(loaded.model, collate(encoded, [row])) for row in range(8)]
        )
    assert torch.allclose(together, alone, rtol=1e-10)


@pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])
def test_the_answer_moves_when_a_kept_visual_token_moves(loaded, rule):
    """Fails without an attention mask: transformers then cuts attention at every gap of positions."""
    encoded = encode_set(loaded, rows(1), rule)
    for slot in (0, len(encoded.features[0]) - 1):
        moved = encoded.features[0].clone()
        moved[slot] += 1.0
        with torch.no_grad():
            before, _ = loaded.family.learned_logits(loaded.model, collate(encoded, [0]))
            after, _ = loaded.family.learned_logits(
                loaded.model, collate(dataclasses.replace(encoded, features=Features.of([moved])), [0])
            )
        assert float((after - before).abs().max()) > 1e-6


def test_without_the_mask_the_trap_is_real(loaded):
    """Negative control: the same pruned row without a mask does not see its first visual token any more."""
    encoded = encode_set(loaded, rows(1), PRUNED)
    batch = collate(encoded, [0])
    still = encoded.features[0]
    moved = still.clone()
    moved[0] += 1.0

    def answer(features, mask):
        projected = loaded.model.model.multi_modal_projector(features[None])
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        with torch.no_grad():
            return loaded.model.model(
                input_ids=batch.input_ids_RL,
                attention_mask=mask,
                position_ids=batch.position_ids_ARL[0],
                mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=list(projected))},
                use_cache=False,
            ).last_hidden_state[:, -2:]

    cut = (answer(moved, None) - answer(still, None)).abs().max()
    seen = (answer(moved, batch.attention_mask_RL) - answer(still, batch.attention_mask_RL)).abs().max()
    assert float(cut) == 0.0 < float(seen)


def test_pruned_slots_match_features_and_keep_their_patches_positions(loaded):
    row = rows(1, images_per_row=2)[0]
    tokens = tokenise(row, loaded, frames(row))
    image_token = loaded.model.config.image_token_id
    shown = [KeptImage(torch.zeros(0), kept, frames(row)[0]) for kept in [(3, 9, 5), (0, 63)]]
    pruned = prune_slots(tokens, image_token, shown)
    start = tokens.input_ids.index(image_token)
    kept = [
        position
        for token, position in zip(pruned.input_ids, pruned.position_ids[0], strict=True)
        if token == image_token
    ]
    assert kept == [start + 3, start + 9, start + 5, start + 64, start + 127]
    assert pruned.position_ids[0][-1] == tokens.position_ids[0][-1]
    assert [label for label in pruned.labels if label != IGNORED] == [
        label for label in tokens.labels if label != IGNORED
    ]


def test_a_text_only_row_keeps_every_token(loaded):
    row = dataclasses.replace(
        rows(1)[0], images=(), messages=(Message("user", "odd or even ?"), Message("assistant", "odd"))
    )
    tokens = tokenise(row, loaded, frames(row))
    assert prune_slots(tokens, loaded.model.config.image_token_id, []) == tokens


def test_an_images_features_are_the_same_bits_whatever_else_is_encoded(loaded):
    alone = encode_image(loaded, picture(0), PRUNED)
    among = encode_set(loaded, rows(5), PRUNED)
    assert torch.equal(alone.features_SD, among.features[0])


def test_encoded_sets_survive_the_disk_and_a_broken_one_is_named(loaded, tmp_path):
    encoded = encode_set(loaded, rows(3, rows_per_unit=2), PRUNED)
    write_encoded(tmp_path / "set", encoded, "00ff")
    found = read_encoded(tmp_path / "set")
    assert list(found.rows) == list(encoded.rows) and found.kinds == encoded.kinds
    assert all(map(torch.equal, found.features, encoded.features)) and len(found.features) == 3
    (tmp_path / "set/rows-00000.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not an encoded record set"):
        read_encoded(tmp_path / "set")


def test_an_empty_batch_collates(loaded):
    batch = collate(encode_set(loaded, rows(1), PRUNED), [])
    assert batch.input_ids_RL.shape == (0, 0) and batch.features == ()


def test_another_family_and_a_missing_model_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="holds no config.json"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"type 'bert', which is not supported; supported: \['gemma3', "):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(tmp_path)
