"""What a release may be asked for."""

from pathlib import Path

import torch

from stages.privacy.noised_sum import NoisedSum
from stages.privacy.stream import RunKey, Streams
from stages.training.one_release import OneRelease
from stages.training.run_folder import RunFolder

MECHANISM = NoisedSum(rate=1.0, rows_per_unit=1, clip=1.0, noise_multiplier=1.0)


def release(folder: Path) -> OneRelease:
    streams = Streams(RunKey(bytes(32)), "f", "profile")
    about = {"release": "a" * 32}, "c" * 64, "unknown", {"torch": "0"}
    return OneRelease(MECHANISM, RunFolder(folder), streams, *about)


def test_a_release_gives_one_noised_sum_whatever_it_is_asked_for_later(tmp_path) -> None:
    """Two with the same noise show their difference as it is: the control is such a one."""
    nobody, somebody = torch.zeros(0, 2), torch.tensor([[0.3, 0.4]])
    alone = release(tmp_path).noised(nobody).sum_P
    again = release(tmp_path).noised(somebody).sum_P
    assert torch.equal(again, alone)
    assert (tmp_path / "noised.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").mkdir()
    leaked = release(tmp_path / "other").noised(somebody).sum_P - alone
    assert torch.allclose(leaked, somebody[0].double(), atol=1e-6)


def test_what_a_release_says_of_itself_holds_no_key(tmp_path) -> None:
    told = release(tmp_path).to_json()
    assert set(told) == {"charge", "mechanism", "made_by"}
    assert told["mechanism"] == {"rate": 1.0, "rows_per_unit": 1, "clip": 1.0, "noise_multiplier": 1.0}
    assert bytes(32).hex() not in str(release(tmp_path)) and "secret" not in str(release(tmp_path))
