"""A whole vision-language model on a few rows, for preflight: synthetic ones, or those of a record set."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from stages.privacy.preflight import Subject
from stages.privacy.segments import Segments
from stages.privacy.trainable_layers import TrainableLayers
from stages.records.row import Row
from stages.records.store import read_rows
from stages.vlm.attribution import first_axis, segments_of
from stages.vlm.messages import messages_of
from stages.vlm.processors import load_processor
from stages.vlm.synthetic import SyntheticRow, synthetic_inputs, text_losses

ROWS_OF_UNIT = [[0, 1], [2], [3]]
_SYNTHETIC = [SyntheticRow(0, 1), SyntheticRow(1, 2, words=5), SyntheticRow(2, 1, 12), SyntheticRow(3, 1)]


def load_whole(path: Path) -> Any:
    """Load any supported model from files alone, frozen, in evaluation mode and its own precision."""
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} holds no config.json: --model must be a Hugging Face model directory")
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    first_axis(config.model_type)  # refuses a family whose batches cannot be attributed
    model: Any = AutoModelForImageTextToText.from_pretrained(
        path, dtype="auto", local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return model.requires_grad_(False).eval()


def synthetic_subject(model: Any) -> Subject:
    """Return the model on four random rows of three units, with one and two images."""
    return _subject(
        model, ROWS_OF_UNIT, lambda rows: synthetic_inputs(model.config, [_SYNTHETIC[row] for row in rows])
    )


def recorded_subject(model: Any, path: Path, records: Path) -> Subject:
    """Return the model on the rows of the first two units of a record set, at most two rows each."""
    processor = load_processor(path)
    by_unit: dict[str, list[Row]] = {}
    for row in read_rows(records):
        by_unit.setdefault(row.unit, []).append(row)
    if len(by_unit) < 2:
        raise ValueError(f"{records} holds {len(by_unit)} unit: preflight compares two")
    chosen = [rows[:2] for rows in list(by_unit.values())[:2]]
    flat = [row for rows in chosen for row in rows]
    rows_of_unit = [list(range(len(chosen[0]))), list(range(len(chosen[0]), len(flat)))]
    return _subject(model, rows_of_unit, lambda rows: _processed(processor, [flat[row] for row in rows]))


def _subject(
    model: Any, rows_of_unit: Sequence[Sequence[int]], batch: Callable[[Sequence[int]], dict[str, Tensor]]
) -> Subject:
    def segments(rows: Sequence[int], owners: Sequence[int]) -> Segments:
        return segments_of(model, batch(rows), np.array(owners))

    return Subject(
        model,
        TrainableLayers.of(model, first_axis(model.config.model_type)),
        rows_of_unit,
        lambda rows: text_losses(model, batch(rows)),
        segments,
    )


def _processed(processor: Any, rows: Sequence[Row]) -> dict[str, Tensor]:
    texts = [processor.apply_chat_template(messages_of(row.messages), tokenize=False) for row in rows]
    images = [[Image.open(io.BytesIO(image)).convert("RGB") for image in row.images] for row in rows]
    given: dict[str, Any] = {"text": texts, "padding": True, "padding_side": "right", "return_tensors": "pt"}
    if any(images):
        given["images"] = images
    inputs: dict[str, Tensor] = dict(processor(**given))
    return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
