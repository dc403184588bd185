"""A frozen model, its processor and its family, together."""

from dataclasses import dataclass
from typing import Any

from stages.vlm.families.family import Family


@dataclass(frozen=True)
class Loaded:
    """A frozen model in evaluation mode, its processor, and what knows its family."""

    model: Any
    processor: Any
    family: Family

    def end_marks(self) -> set[int]:
        """Return the tokens that end an answer: the tokenizer's, and those of the generation settings."""
        settings = self.model.generation_config
        named = settings.eos_token_id if settings is not None else None
        listed = named if isinstance(named, list | tuple) else [named]
        return {int(token) for token in (*listed, self.processor.tokenizer.eos_token_id) if token is not None}
