"""Write a fine-tuned model as a directory that people without this project load."""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from stages.core.disk_errors import system_errors
from stages.core.files import read_json, sha256
from stages.exporting.card import Exported
from stages.exporting.loader import BASE, NAME, loader_text
from stages.trainable import lora, reversible, side
from stages.trainable.adapters import adapter_files, load_adapter
from stages.vlm.family import Precision, load
from stages.vlm.source import WANTED

_KINDS = {lora.CONFIG: "lora", side.CONFIG: "side", reversible.CONFIG: "reversible"}
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
"""What merging writes anew; all other files of the base model are copied as they are."""


def require_accounted(adapter: Path, trace: Path, statement: Path) -> dict[str, Any]:
    """Return the privacy statement of an adapter.

    Guarantee: the statement commits to the trace and the trace names the adapter, byte for byte; anything
    else is a ValueError, so that no model is handed on beside the statement of another one.
    """
    said: dict[str, Any] = read_json(statement)
    named = read_json(trace)["adapter"]
    if sha256(trace) not in said["evidence"].values():
        raise ValueError(f"{trace} is not the file that {statement} commits to: run `dvc repro account`")
    for name in adapter_files(adapter):
        if sha256(adapter / name) != named.get(name):
            raise ValueError(f"{adapter / name} is not the file that {trace} names: run `dvc repro finetune`")
    return said


def write_model(backbone: Path, adapter: Path, directory: Path, precision: Precision) -> Exported:
    """Write the tuned model into ``directory``, which is empty, and say what it is.

    Kinds of PEFT are merged into the weights. Side networks and reversible adapters have no place in the
    weights of the base model: it is copied, and a loader of one file lies beside it and them.
    """
    loaded = load(backbone, precision=precision)
    config, weights = adapter_files(adapter)
    kind, about = _KINDS[config], read_json(adapter / config)
    if kind == "lora":
        _write_merged(load_adapter(loaded.model, adapter, loaded.family), adapter, directory)
        _copy(backbone, directory, _WEIGHTS)
        return Exported(kind=kind, base=str(about["base_model_name_or_path"]), precision=precision)
    loader = loader_text(kind, loaded.model, loaded.family, precision)
    load_adapter(loaded.model, adapter, loaded.family)  # refuses what does not fit before anything is copied
    _copy(backbone, directory / BASE, ())
    for name in (config, weights):
        shutil.copyfile(adapter / name, directory / name)
    (directory / NAME).write_text(loader)
    return Exported(kind=kind, base=str(about["base"]), precision=precision)


def _write_merged(tuned: Any, adapter: Path, directory: Path) -> None:
    try:
        merged = tuned.merge_and_unload(safe_merge=True)
    except ValueError:
        raise ValueError(f"{adapter} holds numbers that are not finite") from None
    # That of the base model is copied: there are models whose own transformers refuses to write.
    merged.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    with system_errors(directory):
        merged.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)


def _copy(backbone: Path, directory: Path, without: Collection[str]) -> None:
    """Copy the files of a base model, such as tokenizer and image processor."""
    directory.mkdir(exist_ok=True)
    for file in sorted({file for pattern in WANTED for file in backbone.glob(pattern)}):
        if not any(file.match(pattern) for pattern in without):
            shutil.copyfile(file, directory / file.name)
