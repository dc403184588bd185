"""The model card of an exported directory: what it is, how to load it, what it sees, and what it cost."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from stages.exporting.loader import NAME
from stages.reporting.card import plain
from stages.reporting.words import alarm, all_of
from stages.vlm.selection import Rule

_MERGED = """\
The adapter of kind {kind} is merged into the weights of {base}, so that transformers alone loads it. Merged
weights are rounded to {precision}, the precision of training: the model answers as base and adapter do, up to
that rounding."""
_BESIDE = f"""\
The frozen model {{base}} is in the folder `base`, what was trained ({{kind}}) in the files beside it, and
`{NAME}` puts both together; it needs torch, transformers, safetensors and pillow, and nothing of dualpriv.
The folder `base` alone is the model before training. Numbers are those of training, in {{precision}}."""
_COST = """\
Exporting reads no record. It is post-processing of an adapter whose privacy is paid for: it costs nothing,
and the statement above holds for this directory too. The licence of the base model goes on holding."""
_NO_PRIVACY = """\
Exporting reads no record. The statement above holds for this directory too: nothing is promised. The licence
of the base model goes on holding."""

_TRANSFORMERS = """\
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(".", dtype=torch.{precision}).eval()
processor = AutoProcessor.from_pretrained(".")
"""
_LOADER = """\
from load_model import load
from PIL import Image

model, processor = load()
"""
_ASK = """
parts = [{"type": "image"}, {"type": "text", "text": "your question"}]
prompt = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
picture = Image.open("picture.png").convert("RGB")
inputs = processor(images=picture, text=prompt, return_tensors="pt").to(model.device, model.dtype)
said = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(processor.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What is exported."""

    kind: str
    """As params.yaml names kinds; ``lora`` for both kinds of PEFT."""
    base: str
    """The name by which others know the backbone."""
    precision: str

    @property
    def is_merged(self) -> bool:
        """Tell whether transformers alone loads it."""
        return self.kind == "lora"


def card_of(
    exported: Exported, statement: Mapping[str, Any], rule: Rule, every: int | None, released: str | None
) -> str:
    """Return the card; ``released`` is that of the release directory, whose evidence is taken over.

    ``every`` is the number of visual tokens of an unpruned image; None: it depends on the image.
    """
    words = {"kind": exported.kind, "base": plain(exported.base), "precision": exported.precision}
    warning = alarm(dict(statement))
    code = _TRANSFORMERS.format(precision=exported.precision) if exported.is_merged else _LOADER
    parts = [
        _front_matter(exported),
        f"# {words['base']}, fine-tuned by dualpriv",
        *([f"> **WARNING: {plain(warning)}**"] if warning else []),
        plain(statement["sentence"]),
        "The whole statement, with digests of the evidence behind it, is `statement.json` in this directory.",
        "## What this is",
        (_MERGED if exported.is_merged else _BESIDE).format(**words),
        _NO_PRIVACY if statement["epsilon"] is None else _COST,
        "## How to load it",
        "From within this directory:",
        f"```python\n{code}{_ASK}```",
        "## What it sees",
        seen_words(rule, every),
        *_sections(released or ""),
    ]
    return "\n\n".join(parts) + "\n"


def seen_words(rule: Rule, every: int | None) -> str:
    """Return how many visual tokens of an image the model saw in training, and sees here."""
    whole = f"{all_of(every)} visual tokens of an image"
    if rule.select == "all":
        return f"The language model sees {whole}, as it did in training."
    return (
        f"Loaded so, the language model sees {whole}. In training it saw at most {rule.slots(every)}, which "
        f"the rule {plain(rule.select)} made of them, and figures told below are of images pruned so. "
        "Pruning at inference is optional: it saves time and needs dualpriv, whose command "
        "`dualpriv predict` does it as in training. What the difference means for answers was not measured."
    )


def _sections(card: str) -> list[str]:
    """Return the sections of an adapter's card, but for how the adapter is loaded."""
    found = re.split(r"^(?=## )", card, flags=re.MULTILINE)[1:]
    return [section.strip() for section in found if not section.startswith("## How to load it\n")]


def _front_matter(exported: Exported) -> str:
    about = {
        "base_model": exported.base,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["dualpriv", "differential-privacy", "vision-language-model", exported.kind],
    }
    text = io.StringIO()
    YAML().dump(about, text)
    return f"---\n{text.getvalue()}---"
