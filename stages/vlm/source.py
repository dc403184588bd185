"""Bring a model from where ``params.yaml`` says into one plain directory."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from stages.vlm.family import Precision

WANTED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""Weights as safetensors, and text: never pickles, never Python files."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Section ``model`` of params.yaml."""

    path: Path
    """A Hugging Face directory; unused when ``hub`` is set."""
    hub: str | None
    """A hub id such as llava-hf/llava-1.5-7b-hf; the only reason ever to ask the hub."""
    revision: str | None
    """The 40-hex commit of a hub id."""
    precision: Precision

    @property
    def name(self) -> str:
        """Return what the user calls it: a hub id, or a directory."""
        return self.hub or self.path.as_posix()

    def __post_init__(self) -> None:
        """Refuse a hub id without a fixed revision."""
        if self.hub is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(
                f"model.revision must be the 40-hex commit of '{self.hub}', got {self.revision!r}: a "
                "branch name may change"
            )


def bring(model: Model, directory: Path) -> None:
    """Copy or download the model's files into ``directory``, which exists and is empty."""
    if model.hub is not None:
        from huggingface_hub import snapshot_download

        snapshot_download(
            model.hub, revision=model.revision, local_dir=directory, allow_patterns=list(WANTED)
        )
        shutil.rmtree(directory / ".cache", ignore_errors=True)
        return
    if not model.path.is_dir():
        raise ValueError(f"model.path {model.path} is not a directory: name a Hugging Face model directory")
    files = sorted({file for pattern in WANTED for file in model.path.glob(pattern)})
    if not any(file.suffix == ".safetensors" for file in files):
        raise ValueError(
            f"model.path {model.path} holds no .safetensors weights: save it again with save_pretrained"
        )
    for file in files:
        shutil.copyfile(file, directory / file.name)
