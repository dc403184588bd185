"""The approval with which the flow started this process, for the reservation that it makes."""

import json
import os

from stages.core.schema import parse
from stages.privacy.approval import Approval, NotAsked

VARIABLE = "DUALPRIV_APPROVAL"
"""The flow's answer for one stage process, as JSON."""
NOBODY = "nobody"
"""The value that says that nobody was asked, for nothing new was to be spent."""


def approval_given(fingerprint: str) -> Approval | NotAsked | None:
    """Return the word that this process was started with; None where no flow asks.

    An approval of other inputs is a ValueError: nothing is spent on it.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    if text == NOBODY:
        return NotAsked()
    found = parse(json.loads(text), Approval, VARIABLE)
    if found.fingerprint != fingerprint:
        raise ValueError(
            f"{found.by} approved a run on other inputs (fingerprint {found.fingerprint[:12]}, not "
            f"{fingerprint[:12]}): what was asked has changed since, so run the flow again and ask again"
        )
    return found
