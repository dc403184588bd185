"""The processes that work on one stage together, and the few things they say to each other.

Started by ``torchrun --nproc-per-node N -m stages.NAME`` or, for ``speed.processes``, by
stages/core/launch.py. Numbers travel here and nothing else; whoever needs a secret reads it from the run's
folder.
"""

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

RENDEZVOUS = "DUALPRIV_RENDEZVOUS"
"""Names the file by which processes that launch.py started find each other."""
PATIENCE = datetime.timedelta(hours=6)
"""How long a process waits for the slowest; one that ended is noticed at once."""
LOST = 75
"""Exit code (EX_TEMPFAIL) of a process whose fellow has ended."""
Item = TypeVar("Item")


class RankLost(RuntimeError):
    """Another process of the stage has ended, so this one cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """This process's number among all that work on the stage. Rank 0 leads: it alone writes."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, draws noise and updates."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of ``items``; the parts of all are disjoint and cover them."""
        return items[self.rank :: self.world]

    def total(self, value: "Tensor") -> "Tensor":
        """Return the sum of every process's tensor, in place; every process must ask."""
        self._together(lambda distributed: distributed.all_reduce(value))
        return value

    def from_leader(self, value: "Tensor") -> "Tensor":
        """Return the leader's tensor, in place, once the leader gets here."""
        self._together(lambda distributed: distributed.broadcast(value, src=0))
        return value

    def most(self, count: int) -> int:
        """Return the largest of every process's ``count``."""
        return max(self.gathered(count))

    def gathered(self, value: Item) -> list[Item]:
        """Return every process's small value, in the order of ranks."""
        found: list[Any] = [value] * self.world
        self._together(lambda distributed: distributed.all_gather_object(found, value))
        return found

    def to_leader(self, value: Item) -> list[Item]:
        """Return every process's value, in the order of ranks, to the leader; the others get nothing."""
        found: list[Any] | None = [value] * self.world if self.leads else None
        self._together(lambda distributed: distributed.gather_object(value, found, dst=0))
        return found or []

    def require_same(self, value: str, what: str) -> None:
        """Refuse processes that disagree."""
        values = self.gathered(value)
        if len(set(values)) > 1:
            raise ValueError(f"the processes of this stage have different {what}: {sorted(set(values))}")

    def _together(self, act: Callable[[Any], Any]) -> None:
        if self.world == 1:
            return
        import torch.distributed

        act(torch.distributed)


ALONE = Ranks()
"""One process that does everything."""


@contextmanager
def noticing_loss() -> Iterator[None]:
    """Turn the errors by which torch says that another process is gone into ``RankLost``.

    They come from whatever was waiting: a sum of ours, or the gathering of a sharded layer.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ not in ("DistBackendError", "DistNetworkError") and "gloo" not in str(error):
            raise
        raise RankLost("another process of this stage has ended") from error


def is_launched() -> bool:
    """Tell whether this process is one of several that were started together."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_rank() -> int:
    """Return this process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Yield this process's place, after it has met the others; alone, nothing is started."""
    if not is_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    import torch.distributed

    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if device.startswith("cuda"):
        torch.cuda.set_device(local_rank())
    meeting = os.environ.get(RENDEZVOUS)
    with noticing_loss():
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
            init_method=f"file://{meeting}" if meeting else "env://",
            rank=ranks.rank,
            world_size=ranks.world,
            timeout=PATIENCE,
        )
        try:
            yield ranks
        finally:
            torch.distributed.destroy_process_group()
