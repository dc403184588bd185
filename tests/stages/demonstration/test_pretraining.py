"""The backbone loads anywhere, reads pruned images properly, and its class token learns."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stages.demonstration.backbone import IMAGE_SIZE, IMAGE_TOKENS, PATCH_SIZE, Size, build_backbone
from stages.demonstration.jitter import Jitter
from stages.demonstration.lessons import Lesson, Lessons, arrange, gather
from stages.demonstration.pretraining import Progress, Recipe, answer_loss, look, pretrain
from stages.demonstration.processor import IMAGE, PAD, build_processor, complete
from stages.demonstration.questions import vocabulary
from stages.vlm.pruning import dominant_contextual, keep_all

VOCABULARY = complete(vocabulary())
SMALL = Size(tower_width=32, tower_layers=2, language_width=32, language_layers=2, expansion=2)
GENTLE = Jitter(
    rotation_degrees=1.0,
    smallest_scale=0.9,
    largest_scale=1.0,
    aspect=0.0,
    shear=0.0,
    translation=0.0,
    elastic=0.0,
    pen=0.0,
    sharpening=0.0,
    dimming=0.0,
    noise=0.0,
)


def _recipe(**changes: Any) -> Recipe:
    values = {
        "size": SMALL,
        "steps": 2,
        "digits_per_step": 3,
        "scenes_per_step": 2,
        "questions_per_image": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "weight_decay": 0.01,
        "class_loss_weight": 1.0,
        "unpruned_share": 0.5,
        "budgets": ((4, 2), (6, 2)),
        "scoring_layers": (0, 1),
        "autocast": False,
        "digit_jitter": GENTLE,
        "scene_jitter": GENTLE,
    }
    return Recipe(**{**values, **changes})


def _png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, shade, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    rows = [
        Lesson("a", _png(250), "digit", "which digit is this ?", "seven"),
        Lesson("a", _png(250), "comparison", "is the digit larger than five ?", "yes"),
        Lesson("b", _png(10), "digit", "read the digit .", "two"),
        Lesson("c", _png(90), "shape", "name the shape .", "circle"),
        Lesson("c", _png(90), "colour", "what colour is it ?", "yellow"),
    ]
    return gather(rows, VOCABULARY)


@pytest.fixture
def model() -> LlavaForConditionalGeneration:
    built = build_backbone(SMALL, VOCABULARY, seed=0).eval()
    built.model.vision_tower.set_attn_implementation("eager")
    return built


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backbone")
    build_backbone(SMALL, VOCABULARY, seed=0).save_pretrained(path)
    build_processor(VOCABULARY, IMAGE_SIZE, PATCH_SIZE).save_pretrained(path)
    return path


def _pixels(lessons: Lessons) -> Tensor:
    return lessons.images_BCHW.float() / 127.5 - 1


def test_the_directory_loads_and_answers_in_a_process_without_our_code(directory: Path) -> None:
    script = """
import sys
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
folder = sys.argv[1]
model = LlavaForConditionalGeneration.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
text = processor.apply_chat_template(
    [{"role": "user", "content": "<image>\\nwhich digit is this ?"}], add_generation_prompt=True
)
inputs = processor(images=[Image.new("RGB", (32, 32))], text=[text], return_tensors="pt")
assert (inputs["input_ids"] == model.config.image_token_id).sum() == 64
assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
assert not [name for name in sys.modules if name.split(".")[0] == "stages"]
"""
    command = [sys.executable, "-I", "-c", script, str(directory)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_both_spellings_of_a_turn_become_the_same_64_placeholders_and_words() -> None:
    processor = build_processor(VOCABULARY, IMAGE_SIZE, PATCH_SIZE)
    parts = [{"type": "image"}, {"type": "text", "text": "Which digit is this ?"}]
    found = []
    for content in ("<image>\nwhich digit is this ?", "<image> which digit is this ?", parts):
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "seven"}]
        text = processor.apply_chat_template(turns)
        ids = processor(images=[Image.new("RGB", (32, 32))], text=[text])["input_ids"][0]
        assert ids.count(VOCABULARY.index(IMAGE)) == IMAGE_TOKENS == 64
        found.append([VOCABULARY[index] for index in ids if index != VOCABULARY.index(IMAGE)])
    expected = "<s> <user> which digit is this ? <assistant> seven </s>".split()
    assert found == [expected] * 3


def test_sequences_are_what_the_processor_makes(lessons: Lessons) -> None:
    source_RS = torch.arange(64).expand(1, -1)
    rows = arrange(lessons.question_RW[:1], lessons.answer_R[:1], source_RS, 64, VOCABULARY)
    processor = build_processor(VOCABULARY, IMAGE_SIZE, PATCH_SIZE)
    turns = [
        {"role": "user", "content": "<image>\nwhich digit is this ?"},
        {"role": "assistant", "content": "seven"},
    ]
    text = processor.apply_chat_template(turns)
    ids = processor(images=[Image.new("RGB", (32, 32))], text=[text])["input_ids"][0]
    kept = rows.attention_mask_RL[0].bool()
    assert rows.input_ids_RL[0][kept].tolist() == ids
    assert rows.position_ids_RL[0][kept].tolist() == list(range(len(ids)))
    assert rows.input_ids_RL[0, rows.assistant_R[0]] == VOCABULARY.index("<assistant>")


def test_a_slot_takes_the_position_of_its_source_and_text_stays_where_it_was(lessons: Lessons) -> None:
    source_RS = torch.tensor([[3, 40, 10]])
    rows = arrange(lessons.question_RW[:1], lessons.answer_R[:1], source_RS, 64, VOCABULARY)
    assert rows.position_ids_RL[0, :5].tolist() == [0, 1, 5, 42, 12]
    assert rows.position_ids_RL[0, 5:8].tolist() == [66, 67, 68]
    assert rows.attention_mask_RL.shape == rows.input_ids_RL.shape
    assert torch.equal(rows.attention_mask_RL == 0, rows.input_ids_RL == VOCABULARY.index(PAD))


def test_keeping_all_equals_the_plain_forward(model: LlavaForConditionalGeneration, lessons: Lessons) -> None:
    pixels_BCHW = _pixels(lessons)
    questions_RW, answers_R = lessons.question_RW, lessons.answer_R
    of_R = lessons.image_of_row_R
    kept = keep_all(look(model, pixels_BCHW, layer=1).patches_BTD)
    rows = arrange(questions_RW, answers_R, kept.source_BS[of_R], 64, VOCABULARY)
    texts = {"input_ids": rows.input_ids_RL, "attention_mask": rows.attention_mask_RL}
    plain = model(**texts, pixel_values=pixels_BCHW[of_R]).logits
    slots = [*model.model.multi_modal_projector(kept.features_BSD)[of_R]]
    entered = model(
        **texts,
        position_ids=rows.position_ids_RL,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=slots)},
    ).logits
    is_real = rows.attention_mask_RL.bool()
    torch.testing.assert_close(entered[is_real], plain[is_real], atol=1e-6, rtol=1e-5)


def test_the_language_loss_is_the_mean_over_rows_of_answer_and_end(
    model: LlavaForConditionalGeneration, lessons: Lessons
) -> None:
    kept = keep_all(look(model, _pixels(lessons), layer=1).patches_BTD)
    inputs = (lessons.image_of_row_R, lessons.question_RW, lessons.answer_R)
    alone = [
        answer_loss(model, kept, *(value[row : row + 1] for value in inputs), VOCABULARY) for row in range(5)
    ]
    together = answer_loss(model, kept, *inputs, VOCABULARY)
    torch.testing.assert_close(together, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_masked", [True, False])
def test_the_answer_sees_every_kept_token_only_with_an_explicit_mask(
    model: LlavaForConditionalGeneration, lessons: Lessons, is_masked: bool
) -> None:
    """The control without a mask shows the trap: jumps in the positions cut attention off."""
    glance = look(model, _pixels(lessons), layer=1)
    kept = dominant_contextual(
        glance.patches_BTD, glance.scores_BT, glance.metric_BTE, dominant=4, contextual=2
    )
    rows = arrange(lessons.question_RW[:1], lessons.answer_R[:1], kept.source_BS[:1], 64, VOCABULARY)
    slots_SD = model.model.multi_modal_projector(kept.features_BSD[0])

    def answer_logits(slots: Tensor) -> Tensor:
        mask = {"attention_mask": rows.attention_mask_RL} if is_masked else {}
        return model(
            input_ids=rows.input_ids_RL,
            position_ids=rows.position_ids_RL,
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=[slots])},
            use_cache=False,
            **mask,
        ).logits[0, rows.assistant_R[0]]

    moved = slots_SD.clone()
    moved[0] += 10.0
    assert bool((answer_logits(slots_SD) != answer_logits(moved)).any()) == is_masked


def test_only_the_class_loss_trains_what_reads_the_class_token(
    lessons: Lessons,
) -> None:
    def read_out_moves(weight: float) -> bool:
        recipe = _recipe(steps=1, class_loss_weight=weight, weight_decay=0.0)
        trained = pretrain(lessons, VOCABULARY, recipe, 0, lambda seen: None)
        start = build_backbone(SMALL, VOCABULARY, seed=0)
        name = "post_layernorm.weight"
        return not torch.equal(
            trained.model.vision_tower.get_parameter(name), start.model.vision_tower.get_parameter(name)
        )

    assert read_out_moves(1.0)
    assert not read_out_moves(0.0)


def test_the_class_token_gives_its_attention_a_gradient(
    model: LlavaForConditionalGeneration, lessons: Lessons
) -> None:
    glance = look(model, _pixels(lessons), layer=1)
    glance.class_token_BD.square().sum().backward()
    attention = model.model.vision_tower.encoder.layers[-1].self_attn
    assert attention.q_proj.weight.grad.abs().max() > 0
    assert attention.k_proj.weight.grad.abs().max() > 0


def test_pretraining_is_a_function_of_its_seed_and_reports_every_step(lessons: Lessons) -> None:
    reports: list[Progress] = []
    once, again = (pretrain(lessons, VOCABULARY, _recipe(), 5, reports.append) for _ in range(2))
    assert [seen.done for seen in reports] == [1, 2, 1, 2]
    assert all(torch.equal(one, two) for one, two in zip(once.parameters(), again.parameters(), strict=True))


def test_a_picture_without_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="every image needs a question of kind"):
        gather([Lesson("a", _png(1), "parity", "odd or even ?", "odd")], VOCABULARY)
