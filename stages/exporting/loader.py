"""The file that loads an exported side network or reversible adapters without this project."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from stages.exporting.bundle import bundled
from stages.vlm.families.family import Family

NAME = "load_model.py"
BASE = "base"
"""The folder of the frozen base model, beside the loader."""
_ROOT = Path(__file__).resolve().parents[2]
_GIVEN = ("Family", "unwrapped", "read_json")
"""What the frame below defines its own way."""
_LOADS: Mapping[str, tuple[str, str]] = {
    "side": ("stages.trainable.side", "load_side"),
    "reversible": ("stages.trainable.reversible", "load_reversible"),
}

_FRAME = '''\
"""Load the model in this directory: `from load_model import load; model, processor = load()`.

Needs torch, transformers, safetensors and pillow. Written by `dualpriv export`; the definitions are those of
the modules that trained the model. The same numbers come out in the precision it was trained in, {precision}.
"""

from __future__ import annotations

{imports}

LANGUAGE = {language!r}
"""Where the language model lies in the base model."""


class Family:
    """Where things are in a model of this kind."""

    @staticmethod
    def language(model: Any) -> Any:
        """Return the language model without its head."""
        return model.get_submodule(LANGUAGE)


def unwrapped(model: Any) -> Any:
    """Return the model itself."""
    return model


def read_json(path: Path) -> Any:
    """Return the JSON value in a file."""
    return json.loads(path.read_text())


def load(
    directory: Path = Path(__file__).resolve().parent,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.{precision},
) -> tuple[Any, Any]:
    """Return the fine-tuned model, in evaluation mode, and its processor, from files alone."""
    base: Any = AutoModelForImageTextToText.from_pretrained(
        directory / {base!r}, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    model = {load}(base.requires_grad_(False).to(device).eval(), directory, Family())
    model.requires_grad_(False)
    if model.generation_config is not None:
        model.generation_config.use_cache = False  # it reads the whole text for every token
    return model, load_processor(directory / {base!r})


{definitions}
'''
_NEEDS = """\
import json
import torch
from pathlib import Path
from transformers import AutoModelForImageTextToText
from typing import Any"""


def loader_text(kind: str, model: nn.Module, family: Family, precision: str) -> str:
    """Return the loader of a kind of adapter for base models such as ``model``."""
    imports, definitions = bundled(*_LOADS[kind], _ROOT, _GIVEN)
    more, processors = bundled("stages.vlm.processors", "load_processor", _ROOT, _GIVEN)
    lines = {*_NEEDS.splitlines(), *imports.splitlines(), *more.splitlines()}
    return _FRAME.format(
        imports="\n".join(sorted(lines, key=lambda line: (line.split()[1], line))),
        language=_place(model, family.language(model)),
        precision=precision,
        base=BASE,
        load=_LOADS[kind][1],
        definitions=f"{definitions}\n\n\n{processors}",
    )


def _place(model: nn.Module, part: Any) -> str:
    found: str = next(name for name, module in model.named_modules() if module is part)
    return found
