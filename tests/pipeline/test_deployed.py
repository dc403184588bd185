"""A worker's clone gets what it needs; nobody's checkout is ever touched, and evidence is never lost."""

import subprocess
from pathlib import Path

import pytest

from pipeline.deployed.clone import is_clone, prepare
from pipeline.deployed.handing_over import hand_over
from pipeline.deployed.revision import commit, repository
from pipeline.git import git
from stages.core.files import write_text
from tests.pipeline.conftest import commit_all

WANTED = {"DUALPRIV_CLONE": "1", "DUALPRIV_LEDGER": "ledger.sqlite3"}
RUN = "brave-newt-123456789abc"


def cloned(checkout: Path, folder: Path) -> Path:
    """Clone as Prefect's pull step does."""
    git(checkout, "clone", "--quiet", "--no-checkout", str(checkout), str(folder))
    git(folder, "checkout", "--quiet", git(checkout, "rev-parse", "HEAD"))
    return folder


@pytest.fixture
def clone(small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a clone that nothing was done to, which is also the current directory."""
    folder = cloned(small_pipeline, tmp_path / "clone")
    monkeypatch.chdir(folder)
    return folder


def test_a_clone_gets_the_state_that_outlives_it(clone: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    prepare(clone, RUN, WANTED | {"DUALPRIV_STATE": str(state)})
    assert (clone / "scratch").resolve() == state / "scratch" and state.stat().st_mode & 0o077 == 0
    assert str(state / "dvc-cache") in (clone / ".dvc/config.local").read_text()
    assert git(clone, "status", "--porcelain") == "" and is_clone(clone)
    prepare(
        clone, RUN, WANTED | {"DUALPRIV_STATE": str(state)}
    )  # a flow that begins again in the same process


def test_the_clone_of_another_run_is_no_clone_for_this_one(clone: Path, tmp_path: Path) -> None:
    given = WANTED | {"DUALPRIV_STATE": str(tmp_path / "state")}
    prepare(clone, "other", given)
    with pytest.raises(
        ValueError, match="is the clone of run other, and every run needs its own: unset `work"
    ):
        prepare(clone, RUN, given)


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
        prepare(clone, RUN, WANTED | {"DUALPRIV_STATE": str(tmp_path / "state"), "DUALPRIV_PRESET": "any"})
    assert {path: path.read_bytes() for path in clone.glob("*") if path.is_file()} == before
    assert not is_clone(clone) and hand_over(clone, "run") is None


def test_in_place_nothing_is_prepared(small_pipeline: Path) -> None:
    prepare(small_pipeline, RUN, {"DUALPRIV_PRESET": "any"})
    assert not is_clone(small_pipeline)


def test_a_state_that_outlives_the_machine_needs_a_ledger_that_does(clone: Path, tmp_path: Path) -> None:
    limit = "\nledger: {url: null, limit: {epsilon: 1.0, delta: 1.0e-5}}\n"
    (clone / "params.yaml").write_text((clone / "params.yaml").read_text() + limit)
    git(clone, "-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", "--all", "--message", "ledger")
    given = {"DUALPRIV_CLONE": "1", "DUALPRIV_STATE": str(tmp_path / "state")}
    with pytest.raises(ValueError, match="what is spent would be forgotten"):
        prepare(clone, RUN, given)
    prepare(clone, RUN, given | {"DUALPRIV_LEDGER": "postgresql://host/ledger"})


def test_what_a_run_left_is_a_branch_or_a_bundle_but_never_lost(
    clone: Path, small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALPRIV_STATE", str(tmp_path / "state"))
    prepare(clone, RUN, WANTED | {"DUALPRIV_STATE": str(tmp_path / "state")})
    assert hand_over(clone, "nothing-new") is None
    write_text(clone / "data/account/statement.json", "1")
    assert hand_over(clone, "first") == "runs/first"
    assert git(small_pipeline, "show", "runs/first:data/account/statement.json") == "1"
    (clone / "data/account/statement.json").write_text("2")
    git(clone, "remote", "set-url", "origin", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"what the run left is in \S+second.bundle"):
        hand_over(clone, "second")
    git(small_pipeline, "fetch", "--quiet", str(tmp_path / "state/unpushed/second.bundle"), "HEAD")
    assert git(small_pipeline, "show", "FETCH_HEAD:data/account/statement.json") == "2"


@pytest.fixture
def handed_over(
    clone: Path, small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Hand over what a run left before it was suspended; return its environment."""
    monkeypatch.setenv("DUALPRIV_STATE", str(tmp_path / "state"))
    given = WANTED | {"DUALPRIV_STATE": str(tmp_path / "state")}
    prepare(clone, RUN, given)
    write_text(clone / "data/account/statement.json", "1")
    (clone / "data/by_hand.json").unlink()  # as DVC does before a stage runs that then fails
    assert hand_over(clone, RUN) == f"runs/{RUN}"
    assert git(small_pipeline, "show", f"runs/{RUN}:data/by_hand.json"), "what is away is not lost"
    return given


def test_a_run_that_was_suspended_goes_on_from_what_it_left(
    handed_over: dict[str, str], small_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = cloned(small_pipeline, tmp_path / "second")
    monkeypatch.chdir(second)
    prepare(second, RUN, handed_over)
    assert (second / "data/account/statement.json").read_text() == "1"
    assert hand_over(second, RUN) == f"runs/{RUN}", "with nothing new, what was handed over is still told"
    (second / "data/account/statement.json").write_text("2")
    assert hand_over(second, RUN) == f"runs/{RUN}"
    assert git(small_pipeline, "show", f"runs/{RUN}:data/account/statement.json") == "2"
    other = cloned(small_pipeline, tmp_path / "other")
    monkeypatch.chdir(other)
    prepare(other, "another", handed_over)
    assert not (other / "data/account/statement.json").exists(), "another run begins where the deployment is"


@pytest.mark.parametrize("changed", ["stages/count.py", "params.yaml", "numpy.py", ".dvc/config"])
def test_a_branch_with_other_code_or_parameters_is_not_gone_on_from(
    handed_over: dict[str, str],
    small_pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: str,
) -> None:
    """Who can push a branch decides nothing about what runs beside private records."""
    theirs = tmp_path / "theirs"
    git(small_pipeline, "clone", "--quiet", "--branch", f"runs/{RUN}", str(small_pipeline), str(theirs))
    with (theirs / changed).open("a") as file:
        file.write("# and more\n")
    commit_all(theirs)
    git(theirs, "push", "--quiet", "origin", f"HEAD:runs/{RUN}")
    second = cloned(small_pipeline, tmp_path / "second")
    monkeypatch.chdir(second)
    with pytest.raises(ValueError, match=f"branch runs/{RUN} has another {changed} than the deployment"):
        prepare(second, RUN, handed_over)
    assert not (second / "data/account/statement.json").exists() and not is_clone(second)


@pytest.mark.parametrize("change", ["a link", "another history"])
def test_evidence_that_is_a_link_or_of_another_history_is_not_gone_on_from(
    handed_over: dict[str, str],
    small_pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    theirs = tmp_path / "theirs"
    git(small_pipeline, "clone", "--quiet", "--branch", f"runs/{RUN}", str(small_pipeline), str(theirs))
    if change == "a link":
        (theirs / "data/account/statement.json").unlink()
        (theirs / "data/account/statement.json").symlink_to("/etc/hostname")
        told = "has another data/account/statement.json than the deployment"
    else:
        git(theirs, "checkout", "--quiet", "--orphan", "other")
        told = "does not grow from the deployed commit"
    commit_all(theirs)
    git(theirs, "push", "--quiet", "--force", "origin", f"HEAD:runs/{RUN}")
    second = cloned(small_pipeline, tmp_path / "second")
    monkeypatch.chdir(second)
    with pytest.raises(ValueError, match=told):
        prepare(second, RUN, handed_over)


def test_what_a_run_is_not_known_to_leave_is_not_handed_over(
    handed_over: dict[str, str], clone: Path, small_pipeline: Path
) -> None:
    (clone / "core.1234").write_text("memory of a stage that crashed")
    (clone / "data/account/statement.json").write_text("2")
    assert hand_over(clone, RUN) == f"runs/{RUN}"
    names = git(small_pipeline, "ls-tree", "-r", "--name-only", f"runs/{RUN}").splitlines()
    assert "core.1234" not in names and "data/account/statement.json" in names


def test_an_account_that_signs_or_checks_every_commit_loses_no_evidence(
    handed_over: dict[str, str], clone: Path, small_pipeline: Path
) -> None:
    git(clone, "config", "commit.gpgsign", "true")
    git(clone, "config", "gpg.program", "/bin/false")
    (clone / "data/account/statement.json").write_text("2")
    assert hand_over(clone, RUN) == f"runs/{RUN}"
    assert git(small_pipeline, "show", f"runs/{RUN}:data/account/statement.json") == "2"


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
    prepare(folder, RUN, WANTED | {"DUALPRIV_STATE": str(state)})
    bare.rename(tmp_path / "away.git")
    write_text(folder / "data/account/statement.json", "1")
    with pytest.raises(ValueError, match="what the run left is in"):
        hand_over(folder, "run")
    git(small_pipeline, "fetch", "--quiet", str(state / "unpushed/run.bundle"), "HEAD")
    assert git(small_pipeline, "show", "FETCH_HEAD:data/account/statement.json") == "1"


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
    git(small_pipeline, "remote", "set-url", "origin", "https://token@host/repository.git")
    with pytest.raises(
        ValueError, match="holds a name or a token, which Prefect's server would keep"
    ) as error:
        repository(small_pipeline)
    assert "token@" not in str(error.value)
    git(small_pipeline, "remote", "set-url", "origin", str(bare))
    (small_pipeline / "params.yaml").write_text("start: {value: 2}\n")
    with pytest.raises(ValueError, match=r"commit params.yaml, or restore what is there"):
        commit(small_pipeline)
