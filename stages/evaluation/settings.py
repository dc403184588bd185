"""How held-out figures are released."""

from dataclasses import dataclass
from typing import Literal

from stages.privacy.plan import Beside


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Section ``evaluate`` of params.yaml."""

    release: Literal["public"]
    """``public`` declares that the held-out records are public, so that exact accuracy may be published."""

    def planned(self) -> tuple[Beside, ...]:
        """Return what releasing the figures will spend."""
        return ()
