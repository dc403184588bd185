"""The scratch folder is the owner's only and lies where the environment says."""

import os
from pathlib import Path

import pytest

from stages.core.scratch import scratch_folder


def test_every_folder_made_on_the_way_is_the_owners_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    folder = scratch_folder("finetune", "abc")
    assert folder == tmp_path / "scratch" / "finetune" / "abc"
    for level in (folder, folder.parent, folder.parent.parent):
        assert level.stat().st_mode & 0o777 == 0o700
    assert scratch_folder("finetune", "abc") == folder


def test_the_checkout_that_dvc_runs_for_owns_the_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DUALPRIV_SCRATCH", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert scratch_folder() == tmp_path / "scratch"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "original"))
    assert scratch_folder() == tmp_path / "original" / "scratch"


def test_a_new_folder_is_on_disk_before_anything_is_written_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A charge is durable only when every folder on the way to it is."""
    flushed: list[int] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    folder = scratch_folder("finetune", "abc")
    assert flushed == [level.stat().st_ino for level in (tmp_path, tmp_path / "scratch", folder.parent)]
    scratch_folder("finetune", "abc")
    assert len(flushed) == 3, "what is there was flushed by whoever made it"
