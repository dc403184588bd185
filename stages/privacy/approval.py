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

    def __post_init__(self) -> None:
        """Refuse an answer that names nobody or no reason, or is no plain line of text."""
        for name in ("by", "reason"):
            text = getattr(self, name)
            if not text.strip() or len(text) > LONGEST or not text.isprintable():
                raise ValueError(
                    f"approval: '{name}' must be a line of 1 to {LONGEST} characters, got {text!r}"
                )
        if not re.fullmatch(r"[0-9a-f]{32}", self.fingerprint):
            raise ValueError(f"approval: a fingerprint is 32 hex digits, got {self.fingerprint!r}")
