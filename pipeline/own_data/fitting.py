"""What a model's shapes decide in ``params.yaml``: how many visual tokens to try, which layers learn."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.own_data.place import from_here

SHARES = (1 / 9, 2 / 9, 1 / 3)
"""Of an image's tokens: the published operating point (64 of 576, VisionZip), twice, three times as many."""
CONTEXTUAL = 10 / 64
"""Share of the kept tokens that stand for the others, at the published operating point."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Fitting:
    """A model, as params.yaml names it, and what its shapes decide; a hub's model has none here."""

    path: Path | None
    hub: str | None
    revision: str | None
    visual_tokens: int | None
    """Of a square image; other shapes may have more or fewer."""

    def changes(self) -> dict[str, Any]:
        """Return the values of params.yaml."""
        found: dict[str, Any] = {"model": {"hub": self.hub, "revision": self.revision}}
        if self.path is not None:
            found["model"]["path"] = self.path.as_posix()
        if self.visual_tokens is not None:
            budgets = candidates(self.visual_tokens)
            found["calibrate"] = {"candidates": [list(budget) for budget in budgets]}
            found["profile"] = dict(zip(("dominant", "contextual"), budgets[0], strict=True))
        return found


def candidates(visual_tokens: int) -> list[tuple[int, int]]:
    """Return (dominant, contextual) tokens to try, smallest first.

    >>> candidates(576)
    [(54, 10), (108, 20), (162, 30)]
    """
    found = []
    for share in SHARES:
        kept = max(2, round(share * visual_tokens))
        contextual = max(1, round(CONTEXTUAL * kept))
        found.append((kept - contextual, contextual))
    return sorted(set(found))


def fitting_of(model: str, revision: str | None, targets: tuple[str, ...]) -> Fitting:
    """Return what ``model``, a Hugging Face directory or a hub id, decides.

    Errors: a ValueError where it is neither, where its family is not supported, where the language model
    lacks one of ``targets``, and where a hub id has no fixed revision.
    """
    directory = Path(model)
    if not directory.is_dir():
        if not _HUB_ID.fullmatch(model):
            raise ValueError(f"--model {model} is neither a directory nor a hub id such as owner/name")
        if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
            raise ValueError(
                f"--model {model} is a hub id: say --revision, the 40-hex commit, for a branch may move"
            )
        return Fitting(None, model, revision, None)
    from PIL import Image

    from stages.trainable.lora import require_targets
    from stages.vlm.family import family_of, outline
    from stages.vlm.processors import load_processor

    family = family_of(directory)
    require_targets(outline(directory), targets, family.LANGUAGE_MODEL)
    side = 336
    frame = family.prepare(load_processor(directory), Image.new("RGB", (side, side), "grey")).frame
    return Fitting(from_here(directory), None, None, sum(frame.runs))
