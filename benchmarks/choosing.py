"""What choosing visual tokens takes beside the tower, image by image."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from stages.vlm.encoder import prepare
from stages.vlm.loaded import Loaded
from stages.vlm.seen import Prepared, Seen
from stages.vlm.selection import Rule


def choosing_ratios(loaded: Loaded, images: Sequence[bytes], rule: Rule) -> list[float]:
    """Return the time of tower and rule as a share of the tower's alone, an image each; the first warms up.

    Rules without attention run the tower as fast as it goes.
    """
    ratios = []
    for image in images:
        ready = prepare(loaded, image)

        def plainly(ready: Prepared = ready) -> Seen:
            return loaded.family.look(loaded.model, ready, ())

        def choosing(ready: Prepared = ready) -> Any:
            return rule.keep(loaded.family.look(loaded.model, ready, rule.layers()))

        plain, both = seconds(plainly), seconds(choosing)
        ratios.append(both / plain)
    return ratios[1:]


def seconds(work: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
