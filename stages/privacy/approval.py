"""Who approved that a release is spent for, and why: asked by the flow, kept with the reservation."""

import re
from dataclasses import dataclass

LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A person's word for one stage on one set of inputs."""

    by: str
    reason: str
    fingerprint: str
    """Of the inputs that were shown to whom it was asked of."""
    asked_in: str | None
    """The run of the flow that asked, 32 hex digits; None in what was stored before it was kept."""

    def __post_init__(self) -> None:
        """Refuse an answer that names nobody or no reason, or is no plain line of text."""
        for name in ("by", "reason"):
            text = getattr(self, name)
            if not text.strip() or len(text) > LONGEST or not text.isprintable():
                raise ValueError(
                    f"approval: '{name}' must be a line of 1 to {LONGEST} characters, got {text!r}"
                )
        for name in ("fingerprint", "asked_in"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[0-9a-f]{32}", value):
                raise ValueError(f"approval: '{name}' is 32 hex digits, got {value!r}")


class NotAsked:
    """The word of a flow that asked nobody, for nothing new was to be spent: no release begins on it."""
