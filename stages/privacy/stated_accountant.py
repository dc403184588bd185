"""The accountant that evidence names: the deciding one, or PLD in another version, which rounds otherwise."""

import re
from collections.abc import Iterator
from typing import Any

from stages.privacy.accounting import ACCOUNTANT, PURE
from stages.privacy.findings import Finding, shown

_DECIDES = re.compile(r"dp_accounting \d+(\.\d+){1,3} PLD", re.ASCII)
_SAME, _OTHER = 1e-9, 1e-3


def accountant_findings(file: str, stated: Any, deciding: str) -> Iterator[Finding]:
    """Yield an accountant that did not decide, or a version that epsilon is not recomputed by.

    Evidence from before pure epsilons had a name calls whoever decided PLD: that is told and no error, for
    its epsilon is recomputed by ``deciding`` all the same.
    """
    if not isinstance(stated, str) or not (stated == PURE or _DECIDES.fullmatch(stated)):
        yield Finding(file, f"names the accountant {shown(stated)}, which decides about nothing")
    elif stated == deciding:
        return
    elif stated == PURE:
        yield Finding(file, f"names the accountant {shown(stated)}, where {deciding} decides")
    elif deciding == PURE:
        yield Finding(file, f"calls {stated} what a {PURE} decided", "warning")
    else:
        yield Finding(file, f"was priced by {stated}: {deciding} has to agree within {_OTHER:.1%}", "warning")


def agrees(recomputed: float, stated: Any, accountant: Any) -> bool:
    """Tell whether a stated epsilon is the recomputed one, as ``accountant`` rounds."""
    near = _SAME if accountant in (ACCOUNTANT, PURE) else _OTHER
    return is_near(recomputed, stated, near)


def is_near(recomputed: float, stated: Any, share: float = _OTHER) -> bool:
    """Tell whether a stated number differs from the recomputed one by at most ``share`` of it."""
    known = isinstance(stated, int | float) and not isinstance(stated, bool)
    return known and abs(recomputed - stated) <= share * abs(recomputed)
