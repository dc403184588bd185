"""Public images and questions as tensors, and the token sequences that the language model reads.

Shapes: B images, R rows (questions), S slots of an image, L tokens of a row, W question tokens, C channels, H
and W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from stages.demonstration.images import decode_png
from stages.demonstration.processor import ASSISTANT, END, IMAGE, PAD, START, USER, Words
from stages.demonstration.questions import words

LABEL_KINDS = ("digit", "shape")
"""The kinds of questions whose answer labels the whole image."""


@dataclass(frozen=True)
class Lesson:
    """One question about one image; rows of the same ``image_id`` show the same picture."""

    image_id: str
    png: bytes
    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Lessons:
    """All lessons, each picture once, rows in the order of their images."""

    images_BCHW: Tensor
    """Values 0 to 255, uint8."""
    label_B: Tensor
    """The token id that names the image: its digit or its shape."""
    is_digit_B: Tensor
    question_RW: Tensor
    answer_R: Tensor
    image_of_row_R: Tensor


@dataclass(frozen=True)
class Sequences:
    """Rows as the model reads them: start, user, image, question, assistant, answer, end, padding."""

    input_ids_RL: Tensor
    attention_mask_RL: Tensor
    position_ids_RL: Tensor
    assistant_R: Tensor
    """Where the assistant token stands; the answer and the end token follow."""


def gather(lessons: Iterable[Lesson], vocabulary: Words) -> Lessons:
    """Turn lessons into tensors; every picture needs a question that labels it."""
    index_of = {word: index for index, word in enumerate(vocabulary)}
    pictures: dict[str, Tensor] = {}
    labels: dict[str, tuple[int, bool]] = {}
    questions, answers, image_ids = [], [], []
    for lesson in lessons:
        if lesson.image_id not in pictures:
            pictures[lesson.image_id] = torch.tensor(decode_png(lesson.png)).permute(2, 0, 1)
        questions.append(torch.tensor([index_of[word] for word in words(lesson.question)]))
        answers.append(index_of[lesson.answer])
        image_ids.append(lesson.image_id)
        if lesson.kind in LABEL_KINDS:
            labels[lesson.image_id] = answers[-1], lesson.kind == "digit"
    unnamed = sorted(pictures.keys() - labels.keys())
    if unnamed:
        raise ValueError(f"every image needs a question of kind {LABEL_KINDS}, {unnamed[0]} has none")
    number_of = {image_id: number for number, image_id in enumerate(pictures)}
    image_of_row_R = torch.tensor([number_of[image_id] for image_id in image_ids])
    order_R = image_of_row_R.argsort(stable=True)
    return Lessons(
        images_BCHW=torch.stack(list(pictures.values())),
        label_B=torch.tensor([labels[image_id][0] for image_id in pictures]),
        is_digit_B=torch.tensor([labels[image_id][1] for image_id in pictures]),
        question_RW=pad_sequence(questions, batch_first=True, padding_value=index_of[PAD])[order_R],
        answer_R=torch.tensor(answers)[order_R],
        image_of_row_R=image_of_row_R[order_R],
    )


def arrange(
    question_RW: Tensor, answer_R: Tensor, source_RS: Tensor, tokens: int, vocabulary: Words
) -> Sequences:
    """Lay out rows whose image shows ``source_RS`` of its ``tokens`` patches.

    Every token keeps the position that it has in the unpruned sequence; a slot takes that of its source
    patch.
    """
    rows, slots = source_RS.shape

    def column(word: str, width: int = 1) -> Tensor:
        return torch.full((rows, width), vocabulary.index(word))

    padding = vocabulary.index(PAD)
    head_RL = torch.cat([column(START), column(USER), column(IMAGE, slots)], dim=1)
    tail_RL = torch.cat([question_RW, column(ASSISTANT), answer_R[:, None], column(END)], dim=1)
    order_RL = (tail_RL == padding).sort(dim=1, stable=True).indices
    tail_RL = tail_RL.gather(1, order_RL)
    input_ids_RL = torch.cat([head_RL, tail_RL], dim=1)
    positions_RL = torch.cat([source_RS, tokens + torch.arange(tail_RL.shape[1]).expand(rows, -1)], dim=1)
    return Sequences(
        input_ids_RL,
        (input_ids_RL != padding).long(),
        pad(positions_RL + 2, (2, 0)) + pad(torch.tensor([0, 1]), (0, positions_RL.shape[1])),
        head_RL.shape[1] + (question_RW != padding).sum(dim=1),
    )
