"""The model card is Markdown that means what it says."""

import re
from pathlib import Path
from typing import get_args

import pytest
from choices import optim, pruning
from ruamel.yaml import YAML

from models import trainable
from stages.reporting.adapter_words import words_of
from stages.reporting.card import front_matter, load_code, plain
from stages.reporting.evidence import Choices
from stages.trainable.settings import Kind
from stages.vlm.selection import TokenSelection
from stages.vlm.source import Model


def choices(hub: str | None = None, revision: str | None = None, kind: str = "lora") -> Choices:
    return Choices(
        trainable=trainable(kind=kind, rank=4, alpha=8.0, targets=("q_proj",)),
        update=pruning("block", 0.8),
        tokens=TokenSelection(select="all", merge="cluster", fusion_noise=0.0),
        optim=optim("adam"),
        model=Model(path=Path("models/pretrained"), hub=hub, revision=revision, precision="float32"),
        rows_at_once=8,
    )


@pytest.mark.parametrize("hub", [None, "llava-hf/llava-1.5-7b-hf", "a: [b]\n---\nx: !!python/object 1"])
def test_the_front_matter_is_yaml_whatever_the_names(hub: str | None) -> None:

    given = choices(hub, "a" * 40)
    text = front_matter(given)
    assert text.startswith("---\n") and text.endswith("\n---\n")
    found = YAML(typ="safe", pure=True).load(text.removeprefix("---\n").removesuffix("---\n"))
    assert found["base_model"] == (hub or "models/pretrained")
    assert found["library_name"] == "peft"
    assert "differential-privacy" in found["tags"]


@pytest.mark.parametrize(
    "text", ["<script>x</script>", "a | b", "**bold** _it_ `code`", "![x](http://y)", "a\n\n# b"]
)
def test_a_value_cannot_write_markdown(text: str) -> None:
    escaped = plain(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)[<>|*`\[\]#]", escaped)
    assert re.sub(r"\\(.)", r"\1", escaped) == " ".join(text.split())


def test_a_hub_model_is_loaded_at_its_revision() -> None:
    code = load_code(choices("org/name", "a" * 40))
    assert f"'org/name', revision='{'a' * 40}'" in code
    compile(code, "card", "exec")


def test_a_side_network_is_not_said_to_be_one_of_peft() -> None:
    given = choices("org/name", "a" * 40, kind="side")
    code = load_code(given)
    compile(code, "card", "exec")
    assert "peft" not in code + front_matter(given)
    assert "load_adapter(base.eval(), Path('models/release'), " in code and "use_cache=False" in code
    assert "library_name: dualpriv" in front_matter(given)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_words_and_code_that_is_python(kind: str) -> None:
    given = choices(kind=kind)
    compile(load_code(given), "card", "exec")
    assert words_of(given.trainable).settings and f"- {kind}" in front_matter(given)
