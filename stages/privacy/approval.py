"""Who approved that a release is spent for, and why: asked by the flow, kept with the reservation."""

import json
import os
import re
from dataclasses import dataclass

from stages.core.schema import parse

VARIABLE = "DUALPRIV_APPROVAL"
"""The flow's answer for one stage process, as JSON."""
NOBODY = "nobody"
"""The value that says that nobody was asked, for nothing was to be spent."""
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


def approval_given(fingerprint: str) -> Approval | None:
    """Return the approval that this process was started with; None where no flow asks.

    An approval of other inputs is a ValueError, and so is a flow that asked nobody: nothing is spent on it.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    if text == NOBODY:
        raise ValueError(
            "nobody was asked, for DVC had the result of this stage a moment ago: run the flow again"
        )
    found = parse(json.loads(text), Approval, VARIABLE)
    if found.fingerprint != fingerprint:
        raise ValueError(
            f"{found.by} approved a run on other inputs (fingerprint {found.fingerprint[:12]}, not "
            f"{fingerprint[:12]}): what was asked has changed since, so run the flow again and ask again"
        )
    return found
