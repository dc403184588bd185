"""A clone holds what runs read as the checkout has it, or nothing runs."""

import subprocess
from pathlib import Path

import pytest

from pipeline.compare.clones import Revision
from pipeline.dvc_command import dvc
from pipeline.git import git


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a committed repository with DVC, records that Git knows in part, and records that DVC keeps."""
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    for key in ("user.name", "user.email"):
        git(root, "config", key, "nobody@example.org")
    subprocess.run(["dvc", "init", "--quiet"], cwd=root, check=True)
    (root / "partly").mkdir()
    (root / "partly/.gitignore").write_text("*.parquet\n")
    (root / "partly/1.parquet").write_text("rows that Git ignores")
    (root / "partly/known.json").write_text("{}")
    (root / "kept").mkdir()
    (root / "kept/rows.json").write_text("old")
    dvc(root, "add", "--quiet", "kept")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "all that Git knows")
    return root


READ = (Path("partly"), Path("kept"))


def test_what_git_ignores_is_in_a_clone_beside_what_it_knows(root: Path) -> None:
    clone = Revision.of(root, READ).clone(root.parent / "clone").runner.root
    for file in ("partly/1.parquet", "partly/known.json", "kept/rows.json"):
        assert (clone / file).read_text() == (root / file).read_text()


def test_inputs_may_lie_in_one_another(root: Path) -> None:
    revision = Revision.of(root, [*READ, Path("partly/1.parquet")])
    clone = revision.clone(root.parent / "clone").runner.root
    assert (clone / "partly/1.parquet").read_text() == "rows that Git ignores"


def test_records_whose_new_note_is_not_committed_are_refused(root: Path) -> None:
    """A clone would take the records that the committed note names, and keep the run under the new ones."""
    (root / "kept/rows.json").write_text("new")
    dvc(root, "add", "--quiet", "kept")
    with pytest.raises(ValueError, match=r"commit kept\.dvc"):
        Revision.of(root, READ)
    git(root, "commit", "--quiet", "--all", "--message", "new records")
    clone = Revision.of(root, READ).clone(root.parent / "clone").runner.root
    assert (clone / "kept/rows.json").read_text() == "new"


def test_records_that_git_knows_are_refused_while_they_are_changed(root: Path) -> None:
    (root / "partly/known.json").write_text("[]")
    with pytest.raises(ValueError, match=r"commit partly/known\.json"):
        Revision.of(root, READ)


def test_a_clone_is_of_the_commit_that_was_there_when_it_was_asked_for(root: Path) -> None:
    revision = Revision.of(root, READ)
    (root / "partly/known.json").write_text("[]")
    git(root, "commit", "--quiet", "--all", "--message", "somebody goes on")
    clone = revision.clone(root.parent / "clone").runner.root
    assert git(clone, "rev-parse", "HEAD") == revision.commit != git(root, "rev-parse", "HEAD")
