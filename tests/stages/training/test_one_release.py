"""What a release may be asked for."""

import pytest
import torch

from stages.privacy.noised_sum import NoisedSum
from stages.privacy.stream import RunKey, Streams
from stages.training.one_release import OneRelease

MECHANISM = NoisedSum(rate=1.0, rows_per_unit=1, clip=1.0, noise_multiplier=1.0)


def release() -> OneRelease:
    streams = Streams(RunKey(bytes(32)), "f", "profile")
    return OneRelease(MECHANISM, streams, {"release": "a" * 32}, "c" * 64, "unknown", {"torch": "0"})


def test_a_release_gives_one_noised_sum() -> None:
    """Two with the same noise show their difference as it is: the second release below is such a one."""
    once, nobody, somebody = release(), torch.zeros(0, 2), torch.tensor([[0.3, 0.4]])
    alone = once.noised(nobody).sum_P
    with pytest.raises(ValueError, match="its noise may not serve two"):
        once.noised(somebody)
    assert (release().noised(somebody).sum_P - alone).tolist() == pytest.approx([0.3, 0.4])


def test_what_a_release_says_of_itself_holds_no_key() -> None:
    told = release().to_json()
    assert set(told) == {"charge", "mechanism", "made_by"}
    assert told["mechanism"] == {"rate": 1.0, "rows_per_unit": 1, "clip": 1.0, "noise_multiplier": 1.0}
    assert bytes(32).hex() not in str(release()) and "secret" not in str(release())
