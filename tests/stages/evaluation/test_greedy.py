"""Answers in batches are the answers that each prompt gets alone, whatever stands beside it."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.tiny_directories import write_directory
from models import ALL, PRUNED, picture
from stages.evaluation.answer import about_one_image, answer, answers, prompt_of
from stages.evaluation.greedy import Prompt, greedy_answers, next_logits
from stages.records.row import IMAGE, Message
from stages.vlm.family import load
from stages.vlm.loaded import Loaded
from stages.vlm.selection import Rule

RULES = pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])
FAMILIES = ["LLaVA (CLIP)", "Qwen2-VL", "Idefics3", "SmolVLM", "PaliGemma"]
QUESTIONS = ("odd ?", "which digit is this ?", "is it larger than five ?")


def shaped(seed: int, size: tuple[int, int]) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


SHAPES = ((32, 32), (32, 16), (16, 32), (32, 32))
ASKED = [(shaped(seed, size), QUESTIONS[seed % 3]) for seed, size in enumerate(SHAPES)]
"""Prompts of unequal text and, where the family allows it, of unequally many slots."""


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Return a tiny model of a family in the precision that users run."""
    return load(write_directory(request.param, tmp_path_factory.mktemp("family") / "model"))


def prompts_of(loaded: Loaded, rule: Rule) -> list[Prompt]:
    made = (prompt_of(loaded, image, question, rule) for image, question in ASKED)
    return [Prompt(tokens, (seen.features_SD,)) for tokens, seen in made]


@RULES
def test_answers_in_batches_are_the_answers_one_at_a_time(loaded: Loaded, rule: Rule) -> None:
    prompts = prompts_of(loaded, rule)
    alone = [greedy_answers(loaded, [prompt], 5)[0] for prompt in prompts]
    assert len({tuple(tokens) for tokens in alone}) > 1, "the test needs answers that differ"
    assert greedy_answers(loaded, prompts, 5) == alone
    assert greedy_answers(loaded, prompts[::-1], 5) == alone[::-1]


def test_a_batch_changes_the_logits_of_a_row_by_rounding_only(loaded: Loaded) -> None:
    """The same prompts with longer and shorter answers behind them, so that every row is padded otherwise."""
    prompts = prompts_of(loaded, PRUNED)
    said = [[5 + token for token in range(row % 4)] for row in range(len(prompts))]
    together = next_logits(loaded, prompts, said)
    for row, (prompt, more) in enumerate(zip(prompts, said, strict=True)):
        alone = next_logits(loaded, [prompt], [more])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)
    shifted = next_logits(loaded, prompts, [[*more, 7] for more in said])
    assert not torch.allclose(shifted, together, rtol=1e-2, atol=1e-2), "another place is told from this one"


def test_where_two_tokens_are_equally_good_the_prompt_is_read_alone(tiny_llava: Path) -> None:
    """Every token has a twin: no step is clear, and rounding would decide which of the two a batch says."""
    loaded = load(tiny_llava)
    with torch.no_grad():
        head = loaded.model.lm_head.weight
        half = len(head) // 2
        head[half : 2 * half] = head[:half] * (1 + 1e-7)
    prompts = prompts_of(loaded, PRUNED)
    alone = [greedy_answers(loaded, [prompt], 8)[0] for prompt in prompts]
    assert greedy_answers(loaded, prompts, 8) == alone


def test_every_answer_ends_at_the_limit_and_no_prompts_have_none(tiny_llava: Path) -> None:
    loaded = load(tiny_llava)
    prompts = prompts_of(loaded, PRUNED)
    assert all(len(tokens) <= 3 for tokens in greedy_answers(loaded, prompts, 3))
    assert greedy_answers(loaded, prompts, 0) == [[] for _ in prompts]
    assert greedy_answers(loaded, [], 3) == []


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut answers early: random weights never end one."""
    monkeypatch.setattr("stages.evaluation.answer.MAX_NEW_TOKENS", 5)


def test_the_text_is_that_of_one_answer_whatever_the_batch(tiny_llava: Path, short: None) -> None:
    loaded = load(tiny_llava)
    alone = [answer(loaded, image, question, PRUNED) for image, question in ASKED]
    given = [(about_one_image(question), (image,)) for image, question in ASKED]
    for batch in (3, 9):
        assert list(answers(loaded, given, PRUNED, batch)) == alone


def test_conversations_with_several_images_are_answered_in_batches_too(tiny_llava: Path, short: None) -> None:
    loaded = load(tiny_llava)
    first = (Message("user", f"{IMAGE}odd ?"), Message("assistant", "odd"))
    given = [
        ((*first, Message("user", f"{IMAGE}and this ?")), (picture(1), picture(2))),
        (about_one_image("which digit is this ?"), (picture(3),)),
    ]
    alone = [text for each in given for text in answers(loaded, [each], PRUNED, 1)]
    assert list(answers(loaded, given, PRUNED, 2)) == alone
    assert alone[1] == answer(loaded, picture(3), "which digit is this ?", PRUNED)
    swapped = [(given[0][0], (picture(2), picture(1)))]
    assert list(answers(loaded, swapped, PRUNED, 1)) != alone[:1]


def test_as_many_conversations_are_read_as_are_answered_at_once(tiny_llava: Path, short: None) -> None:
    loaded, read = load(tiny_llava), []

    def asked():  # type: ignore[no-untyped-def]
        for seed in range(5):
            read.append(seed)
            yield about_one_image("odd ?"), (picture(seed),)

    found = answers(loaded, asked(), PRUNED, 2)
    next(found)
    assert read == [0, 1]
