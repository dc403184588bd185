"""The model card: what a stranger needs who receives the adapter's directory and nothing else."""

import io
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from stages.privacy.canary_evidence import in_words
from stages.reporting.adapter_words import words_of
from stages.reporting.evidence import Choices, Evidence
from stages.reporting.reference import Reference
from stages.reporting.words import alarm, all_of, an_image, count, interval, ordered_kinds, percent

RELEASE = "models/release"
BACKBONE = "models/backbone"
_MARKS = re.compile(r"([\\`*<>\[\]|&~#]|(?<!\w)_|_(?!\w))")


def render_card(evidence: Evidence, choices: Choices, reference: Reference | None = None) -> str:
    """Return the model card: Hugging Face front matter, then Markdown with the statement's sentence first.

    Every value is escaped: a name cannot open a tag, a table cell or a block of its own.
    """
    environment = Environment(
        loader=PackageLoader("stages.reporting", "."),
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "count": count,
        "an_image": an_image,
        "all_of": all_of,
    }
    return environment.get_template("card.md.j2").render(
        front=Markup(front_matter(choices)),
        evidence=evidence,
        statement=evidence.statement,
        metrics=evidence.metrics,
        reference=reference,
        choices=choices,
        adapter=words_of(choices.trainable),
        alarm=alarm(evidence.statement),
        canaries=in_words(evidence.canaries, evidence.statement["epsilon"]),
        code=Markup(load_code(choices)),
        kinds=ordered_kinds(evidence.metrics),
    )


def plain(value: Any) -> Any:
    r"""Return a value as Markdown text that means its own characters, on one line.

    >>> plain("a <b> *c*\nd_e")
    'a \\<b\\> \\*c\\* d_e'
    """
    return value if isinstance(value, Markup) else _MARKS.sub(r"\\\1", " ".join(str(value).split()))


def front_matter(choices: Choices) -> str:
    """Return the YAML front matter that the Hugging Face hub reads."""
    about = {
        "base_model": choices.base,
        "library_name": words_of(choices.trainable).library,
        "pipeline_tag": "image-text-to-text",
        "tags": ["dualpriv", "differential-privacy", "vision-language-model", choices.trainable.kind],
    }
    yaml, text = YAML(), io.StringIO()
    yaml.dump(about, text)
    return f"---\n{text.getvalue()}---\n"


def load_code(choices: Choices) -> str:
    """Return Python that answers a question with the adapter, by as few libraries as its kind allows."""
    words = words_of(choices.trainable)
    if choices.model.hub is None:
        base, revision = BACKBONE, ""
    else:
        base, revision = choices.model.hub, f", revision={choices.model.revision!r}"
    imports = "\n".join((*words.imports, "from PIL import Image"))
    return f"""\
import torch
{imports}
from transformers import AutoModelForImageTextToText, AutoProcessor

base = AutoModelForImageTextToText.from_pretrained({base!r}{revision}, dtype=torch.{choices.model.precision})
model = {words.load.format(release=RELEASE)}
processor = AutoProcessor.from_pretrained({base!r}{revision})

parts = [{{"type": "image"}}, {{"type": "text", "text": "your question"}}]
prompt = processor.apply_chat_template([{{"role": "user", "content": parts}}], add_generation_prompt=True)
picture = Image.open("picture.png").convert("RGB")
inputs = processor(images=picture, text=prompt, return_tensors="pt")
said = model.generate(**inputs, max_new_tokens=64, do_sample=False{words.generate})
print(processor.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
