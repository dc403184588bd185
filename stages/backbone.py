"""The frozen base model, resolved into one Hugging Face directory of safetensors."""

from dataclasses import dataclass
from pathlib import Path

from stages.core.contract import Stage, reads_from, writes
from stages.core.entry import main
from stages.core.files import new_directory
from stages.vlm.family import family_of
from stages.vlm.source import Model, bring


@dataclass(frozen=True, kw_only=True)
class Backbone(Stage):
    """Bring the base model into one directory that plain transformers loads."""

    model: Model
    source: Path = reads_from("model.path")
    backbone: Path = writes("models/backbone")

    def run(self) -> None:
        """Copy or download, and refuse an unsupported family before anything stays."""
        with new_directory(self.backbone) as directory:
            bring(self.model, directory)
            family_of(directory, called=self.model.name)


if __name__ == "__main__":
    main(Backbone)
