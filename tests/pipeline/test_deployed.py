"""A worker's clone gets what it needs; nobody's checkout is ever touched, and evidence is never lost."""

import subprocess
from pathlib import Path

import pytest

from pipeline.deployed.clone import is_clone, prepare
from pipeline.deployed.handing_over import hand_over
from pipeline.deployed.revision import commit, repository
from pipeline.git import git
from tests.pipeline.conftest import commit_all

WANTED = {"DUALPRIV_CLONE": "1", "DUALPRIV_LEDGER": "ledger.sqlite3"}


@pytest.fixture
def clone(small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a clone as Prefect's pull step makes it, which is also the current directory."""
    folder = tmp_path / "clone"
    git(small_pipeline, "clone", "--quiet", "--no-checkout", str(small_pipeline), str(folder))
    git(folder, "checkout", "--quiet", git(small_pipeline, "rev-parse", "HEAD"))
    monkeypatch.chdir(folder)
    return folder


def test_a_clone_gets_the_state_that_outlives_it(clone: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    prepare(clone, WANTED | {"DUALPRIV_STATE": str(state)})
    assert (clone / "scratch").resolve() == state / "scratch" and state.stat().st_mode & 0o077 == 0
    assert str(state / "dvc-cache") in (clone / ".dvc/config.local").read_text()
    assert git(clone, "status", "--porcelain") == "" and is_clone(clone)
    prepare(clone, WANTED | {"DUALPRIV_STATE": str(state)})  # a flow that begins again in the same process


@pytest.mark.parametrize("touch", ["a branch", "a scratch folder", "a change"])
def test_somebodys_checkout_is_left_alone(clone: Path, tmp_path: Path, touch: str) -> None:
    if touch == "a branch":
        git(clone, "checkout", "--quiet", "-b", "mine")
    elif touch == "a scratch folder":
        (clone / "scratch").mkdir()
    else:
        (clone / "params.yaml").write_text("mine: 1\n")
    before = {path: path.read_bytes() for path in clone.glob("*") if path.is_file()}
    with pytest.raises(ValueError, match="is no fresh clone of a worker's"):
        prepare(clone, WANTED | {"DUALPRIV_STATE": str(tmp_path / "state"), "DUALPRIV_PRESET": "any"})
    assert {path: path.read_bytes() for path in clone.glob("*") if path.is_file()} == before
    assert not is_clone(clone) and hand_over(clone, "run") is None


def test_in_place_nothing_is_prepared(small_pipeline: Path) -> None:
    prepare(small_pipeline, {"DUALPRIV_PRESET": "any"})
    assert not is_clone(small_pipeline)


def test_a_state_that_outlives_the_machine_needs_a_ledger_that_does(clone: Path, tmp_path: Path) -> None:
    limit = "\nledger: {url: null, limit: {epsilon: 1.0, delta: 1.0e-5}}\n"
    (clone / "params.yaml").write_text((clone / "params.yaml").read_text() + limit)
    git(clone, "-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", "--all", "--message", "ledger")
    given = {"DUALPRIV_CLONE": "1", "DUALPRIV_STATE": str(tmp_path / "state")}
    with pytest.raises(ValueError, match="what is spent would be forgotten"):
        prepare(clone, given)
    prepare(clone, given | {"DUALPRIV_LEDGER": "postgresql://host/ledger"})


def test_what_a_run_left_is_a_branch_or_a_bundle_but_never_lost(
    clone: Path, small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALPRIV_STATE", str(tmp_path / "state"))
    prepare(clone, WANTED | {"DUALPRIV_STATE": str(tmp_path / "state")})
    assert hand_over(clone, "nothing-new") is None
    (clone / "data/evidence.json").write_text("1")
    assert hand_over(clone, "first") == "runs/first"
    assert git(small_pipeline, "show", "runs/first:data/evidence.json") == "1"
    (clone / "data/evidence.json").write_text("2")
    git(clone, "remote", "set-url", "origin", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"what the run left is in \S+second.bundle"):
        hand_over(clone, "second")
    git(small_pipeline, "fetch", "--quiet", str(tmp_path / "state/unpushed/second.bundle"), "HEAD")
    assert git(small_pipeline, "show", "FETCH_HEAD:data/evidence.json") == "2"


def test_a_clone_without_old_blobs_keeps_its_bundle_too(
    small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Prefect clones a commit from a server, which is then away."""
    bare, folder, state = tmp_path / "bare.git", tmp_path / "partial", tmp_path / "state"
    (small_pipeline / "old.txt").write_text("of an older commit")
    commit_all(small_pipeline)
    (small_pipeline / "old.txt").unlink()
    commit_all(small_pipeline)
    git(tmp_path, "clone", "--quiet", "--bare", str(small_pipeline), str(bare))
    git(bare, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", "--no-checkout", bare.as_uri(), str(folder))
    git(folder, "checkout", "--quiet", git(bare, "rev-parse", "HEAD"))
    monkeypatch.setenv("DUALPRIV_STATE", str(state))
    monkeypatch.chdir(folder)
    prepare(folder, WANTED | {"DUALPRIV_STATE": str(state)})
    bare.rename(tmp_path / "away.git")
    (folder / "data/evidence.json").write_text("1")
    with pytest.raises(ValueError, match="what the run left is in"):
        hand_over(folder, "run")
    git(small_pipeline, "fetch", "--quiet", str(state / "unpushed/run.bundle"), "HEAD")
    assert git(small_pipeline, "show", "FETCH_HEAD:data/evidence.json") == "1"


def test_what_is_deployed_is_committed_and_where_workers_can_have_it(
    small_pipeline: Path, tmp_path: Path
) -> None:
    commit_all(small_pipeline)
    assert repository(small_pipeline) == str(small_pipeline)
    assert commit(small_pipeline) == git(small_pipeline, "rev-parse", "HEAD")
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(small_pipeline), str(bare)], check=True)
    git(small_pipeline, "remote", "add", "origin", str(bare))
    with pytest.raises(ValueError, match="remote origin has no commit .*: `git push`, and deploy again"):
        commit(small_pipeline)
    git(small_pipeline, "push", "--quiet", "origin", "HEAD")
    assert repository(small_pipeline) == str(bare) and commit(small_pipeline)
    (small_pipeline / "params.yaml").write_text("start: {value: 2}\n")
    with pytest.raises(ValueError, match=r"commit params.yaml, or restore what is there"):
        commit(small_pipeline)
