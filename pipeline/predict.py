"""The command ``dualpriv predict``: the fine-tuned model's answers to questions about images."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.as_trained import require_as_trained
from stages.core.files import read_json, write_text
from stages.core.params import PARAMS, read_params, read_section

BACKBONE = Path("models/backbone")
ADAPTER = Path("models/adapter")
PRUNING = Path("data/calibrate/pruning.json")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asked for."""

    image: Path | None
    question: str | None
    jsonl: Path | None
    out: Path | None
    batch: int | None
    """None: speed.micro_batch."""

    def __post_init__(self) -> None:
        """Refuse what asks nothing, or two things at once."""
        if self.jsonl is None and (self.image is None or self.question is None):
            raise ValueError("ask with both --image and --question, or with --jsonl")
        if self.jsonl is not None and self.question is not None:
            raise ValueError("--question is for --image alone: the lines of --jsonl have their own")
        if self.jsonl is not None and self.image is not None and self.image.is_dir():
            raise ValueError(f"{self.image} is a folder: with --jsonl, --image is the file of unnamed images")
        if self.out is not None and self.out.is_dir():
            raise ValueError(f"{self.out} is a folder: name a file for --out")

    @property
    def is_single(self) -> bool:
        """Tell whether it is one question about one image, whose answer is printed alone."""
        return self.jsonl is None and self.out is None and self.image is not None and not self.image.is_dir()


def predict_command(request: Request) -> None:
    """Answer with the model in the current checkout, which sees images pruned as in training.

    Guarantee: all images and lines are read and checked before the first answer; the file ``out`` is there
    whole or as it was; pruning, precision and backbone are those of training (``require_as_trained``).
    """
    from pipeline.asking import about, lines_of
    from stages.evaluation.answer import require_question
    from stages.records.row import IMAGE

    if request.jsonl is not None:
        asked = lines_of(request.jsonl, request.image)
    else:
        assert request.image is not None and request.question is not None
        require_question(request.question, IMAGE)
        asked = about(request.image, request.question)
    require_model()
    found = _answers(asked, request.batch)
    if request.is_single:
        print(next(found))
    elif request.out is None:
        for each, text in zip(asked, found, strict=True):
            print(_line(each.said, text), flush=True)
    else:
        _write(request.out, asked, found)


def require_model() -> None:
    """Refuse a checkout that has no fine-tuned model."""
    for folder in (BACKBONE, ADAPTER):
        if not folder.is_dir():
            raise ValueError(f"{folder} is missing: run `dvc repro` (or `dvc pull`) to make it")


def _write(out: Path, asked: Sequence[Any], found: Iterator[str]) -> None:
    from stages.core.progress import progress

    lines = []
    with progress("predict", len(asked)) as advance:
        for each, text in zip(asked, found, strict=True):
            lines.append(_line(each.said, text) + "\n")
            advance(len(lines))
    try:
        write_text(out, "".join(lines))
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror}") from None
    print(f"{out} holds {len(lines)} {'answer' if len(lines) == 1 else 'answers'}")


def _line(said: dict[str, Any], text: str) -> str:
    return json.dumps(said | {"answer": text}, ensure_ascii=False)


def _answers(asked: Sequence[Any], batch: int | None) -> Iterator[str]:
    from pipeline.asking import require_no_mark
    from stages.core.speed import Speed, use
    from stages.evaluation.answer import answers
    from stages.trainable.adapters import load_adapter
    from stages.vlm.family import load
    from stages.vlm.selection import TokenSelection
    from stages.vlm.source import Model

    params = read_params()
    selection = read_section(params, "tokens", TokenSelection, PARAMS)
    precision = read_section(params, "model", Model, PARAMS).precision
    pruning = read_json(PRUNING)
    require_as_trained(params, PRUNING, BACKBONE)
    rule = selection.under(pruning["chosen"])
    speed = use(Speed.load())
    loaded = load(BACKBONE, device=speed.device, precision=precision)
    require_no_mark(asked, loaded.processor.image_token)
    for each in asked:
        loaded.family.require_row(loaded.model, len(each.images))
    tuned = replace(loaded, model=load_adapter(loaded.model, ADAPTER, loaded.family))
    conversations = ((each.messages, each.read()) for each in asked)
    return answers(tuned, conversations, rule, batch or speed.micro_batch)
