"""The accountant that evidence names: ours, or the same in another version, which rounds otherwise."""

import re
from collections.abc import Iterator
from typing import Any

from stages.privacy.accounting import ACCOUNTANT
from stages.privacy.findings import Finding, shown

_DECIDES = re.compile(r"dp_accounting \d+(\.\d+){1,3} PLD", re.ASCII)
_SAME, _OTHER = 1e-9, 1e-3


def accountant_findings(file: str, stated: Any) -> Iterator[Finding]:
    """Yield an accountant that decides about nothing, or a version that epsilon is not recomputed by."""
    if not isinstance(stated, str) or not _DECIDES.fullmatch(stated):
        yield Finding(file, f"names the accountant {shown(stated)}, which decides about nothing")
    elif stated != ACCOUNTANT:
        yield Finding(
            file, f"was priced by {stated}: {ACCOUNTANT} has to agree within {_OTHER:.1%}", "warning"
        )


def agrees(recomputed: float, stated: Any, accountant: Any) -> bool:
    """Tell whether a stated epsilon is the recomputed one, as ``accountant`` rounds."""
    near = _SAME if accountant == ACCOUNTANT else _OTHER
    return is_near(recomputed, stated, near)


def is_near(recomputed: float, stated: Any, share: float = _OTHER) -> bool:
    """Tell whether a stated number differs from the recomputed one by at most ``share`` of it."""
    known = isinstance(stated, int | float) and not isinstance(stated, bool)
    return known and abs(recomputed - stated) <= share * abs(recomputed)
