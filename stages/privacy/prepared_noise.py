"""The noise of every step, drawn from its secret streams while the step before it still computes.

Shapes: P trainable weights, in the order of the tensors' sizes.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from stages.privacy.directions import Distribution
from stages.privacy.stream import Streams


@dataclass(frozen=True)
class StandardNoise:
    """Independent standard numbers that have served no other sum; made by ``PreparedNoise`` only."""

    standard_P: Tensor = field(repr=False)
    """In float64, on the device of the sum that it is for."""
    distribution: Distribution = "gaussian"

    def only(self, is_in_P: Tensor) -> "StandardNoise":
        """Return the noise where ``is_in_P`` holds, and zero elsewhere."""
        return StandardNoise(self.standard_P.where(is_in_P, 0.0), self.distribution)


class PreparedNoise:
    """Draws each step's noise once, the next one in a thread while this one is in use.

    It is drawn on the CPU and waits there, so that a GPU has its memory for the look at the units.

    Guarantee: the noise of a step is a function of its streams alone, one stream a tensor; a step's noise is
    given once, and steps only go up, so no two sums of a process share any. A step that is replayed after a
    crash adds the same noise to the same sum.
    """

    def __init__(
        self,
        streams: Streams,
        sizes: Mapping[str, int],
        steps: int,
        device: torch.device | str = "cpu",
        distribution: Distribution = "gaussian",
    ) -> None:
        """Expect steps below ``steps``; ``sizes`` are the weights of every trainable tensor, by name.

        A step's noise is given on ``device``, bit for bit the same on any.
        """
        self._streams, self._sizes, self._steps, self._device = streams, dict(sizes), steps, device
        self._distribution: Distribution = distribution
        self._last = -1
        self._next: tuple[int, Future[Tensor]] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise")

    def at(self, step: int) -> StandardNoise:
        """Return the noise of ``step`` and begin to draw the next step's; the same step again is an error."""
        if not self._last < step < self._steps:
            raise ValueError(
                f"noise of step {step} was asked for after that of step {self._last} of {self._steps}: no "
                "noise may serve two sums"
            )
        self._last = step
        if self._next is not None and self._next[0] == step:
            waiting_P = self._next[1].result()
        else:
            waiting_P = self._draw(step)
        self._next = (step + 1, self._thread.submit(self._draw, step + 1)) if step + 1 < self._steps else None
        return StandardNoise(waiting_P.to(self._device, non_blocking=True), self._distribution)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _draw(self, step: int) -> Tensor:
        is_pinned = torch.device(self._device).type == "cuda"  # so that its copy does not hold up the GPU
        standard_P = torch.empty(sum(self._sizes.values()), dtype=torch.float64, pin_memory=is_pinned)
        start = 0
        for name, size in self._sizes.items():
            stream = self._streams.at("noise", step, name)
            drawn = stream.gaussian(size) if self._distribution == "gaussian" else stream.laplace(size)
            standard_P[start : start + size] = torch.from_numpy(drawn)
            start += size
        return standard_P
