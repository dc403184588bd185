"""Greedy answers agree with teacher forcing, and unpruned ones with Hugging Face's generation."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models import ALL, PRUNED, load_float64, picture, rows
from stages.evaluation.answer import MAX_NEW_TOKENS, answer, greedy_tokens, prompt_of
from stages.records.encoded import collate
from stages.records.row import IMAGE, Row
from stages.records.token_rows import IGNORED
from stages.vlm.encoder import encode_set
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule

RULES = pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])


def question_of(row: Row) -> str:
    return row.messages[0].content.replace(IMAGE, "")


def learn(loaded: Loaded, given: list[Row], rule: Rule, known: range) -> Loaded:
    """Return the model after it has learned the ``known`` rows by heart: some verdicts become true."""
    model, batch = loaded.model.requires_grad_(True), collate(encode_set(loaded, given, rule), known)
    optimizer = torch.optim.Adam(model.model.language_model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = loaded.family.row_losses(model, batch).mean()
        loss.backward()
        optimizer.step()
    return replace(loaded, model=model.requires_grad_(False).eval())


@RULES
def test_greedy_tokens_are_the_labels_exactly_where_teacher_forcing_says_answered(
    tiny_llava: Path, rule: Rule
) -> None:
    given = rows(units=6, rows_per_unit=2)
    loaded = learn(load_float64(tiny_llava), given, rule, range(6))
    encoded = encode_set(loaded, given, rule)
    verdicts = loaded.family.rows_answered(loaded.model, collate(encoded, range(len(given)))).tolist()
    assert set(verdicts) == {True, False}, "the test needs rows of both kinds"
    for row, tokens, is_answered in zip(given, encoded.rows, verdicts, strict=True):
        labels = [label for label in tokens.labels if label != IGNORED]
        prompt, seen = prompt_of(loaded, row.images[0], question_of(row), rule)
        found = greedy_tokens(loaded, prompt, seen, MAX_NEW_TOKENS)
        assert (found == labels) == is_answered
        said = answer(loaded, row.images[0], question_of(row), rule)
        assert not is_answered or said == row.messages[1].content


@RULES
def test_the_prompt_is_the_beginning_of_the_row_that_was_trained_on(tiny_llava: Path, rule: Rule) -> None:
    loaded, given = load_float64(tiny_llava), rows(units=2, rows_per_unit=3)
    encoded = encode_set(loaded, given, rule)
    for row, trained in zip(given, encoded.rows, strict=True):
        prompt, seen = prompt_of(loaded, row.images[0], question_of(row), rule)
        length = len(prompt.input_ids)
        assert prompt.input_ids == trained.input_ids[:length]
        (before,), (whole,) = prompt.position_ids, trained.position_ids
        assert before == whole[:length]
        assert whole[length:] == tuple(
            range(before[-1] + 1, before[-1] + 1 + len(trained.input_ids) - length)
        ), "a new token's position is the one after the last"
        assert torch.equal(seen.features_SD, encoded.features[trained.images[0]])


def hugging_face_tokens(loaded: Loaded, image: bytes, question: str, at_most: int) -> list[int]:
    parts = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = loaded.processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True
    )
    with Image.open(io.BytesIO(image)) as opened:
        inputs: Any = loaded.processor(images=opened.convert("RGB"), text=prompt, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(loaded.model.dtype)
    inputs.pop("token_type_ids", None)
    generated = loaded.model.generate(
        **inputs,
        max_new_tokens=at_most,
        do_sample=False,
        eos_token_id=sorted(loaded.end_marks()),
        pad_token_id=0,
        suppress_tokens=[loaded.model.config.image_token_id],
    )
    return generated[0, inputs["input_ids"].shape[1] :].tolist()  # type: ignore[no-any-return]


def test_with_all_tokens_hugging_face_generates_the_same(tiny_llava: Path) -> None:
    loaded = load_float64(tiny_llava)
    for row in rows(units=4, rows_per_unit=2):
        prompt, seen = prompt_of(loaded, row.images[0], question_of(row), ALL)
        expected = hugging_face_tokens(loaded, row.images[0], question_of(row), 12)
        assert greedy_tokens(loaded, prompt, seen, 12) == expected


def test_an_answer_ends_at_the_limit(tiny_llava: Path) -> None:
    loaded = load_float64(tiny_llava)
    prompt, seen = prompt_of(loaded, picture(1), "odd or even ?", PRUNED)
    assert len(greedy_tokens(loaded, prompt, seen, 3)) <= 3
    assert greedy_tokens(loaded, prompt, seen, 0) == []


@pytest.mark.parametrize(
    ("question", "said"), [("  ", "empty"), ("what <image> is this", "must not contain")]
)
def test_a_question_that_is_none_is_refused(tiny_llava: Path, question: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        answer(load_float64(tiny_llava), picture(1), question, ALL)
