"""The code of a release is compared with the commit that it names."""

import hashlib
import json
from pathlib import Path

import pytest
from forging import BEFORE
from honest_evidence import files_of
from stored_evidence import read

from pipeline.executed_code import checked_code
from stages.core.canonical import canonical_json
from stages.privacy.evidence import LOCK, PRUNING, TRACE, Evidence
from tests.pipeline.test_evidence_source import commit, git

STAGE = "stages/finetune.py"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository that holds the code of a stage."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main", ".")
    (tmp_path / "stages").mkdir()
    (tmp_path / STAGE).write_text("print('trained')\n")
    commit(tmp_path, "one")
    return tmp_path


def evidence(repository: Path, name: str) -> Evidence:
    """Return evidence of a release that ran what lies in the repository, at a commit of that name."""
    files = files_of(BEFORE)
    lock, trace = json.loads(files[LOCK]), json.loads(files[TRACE])
    lock["stages"]["finetune"]["deps"].append({"path": STAGE, "md5": "0" * 32})
    digests = {STAGE: hashlib.sha256((repository / STAGE).read_bytes()).hexdigest()}
    trace.update(commit=name, code=hashlib.sha256(canonical_json(digests)).hexdigest())
    return read({**files, LOCK: canonical_json(lock), TRACE: canonical_json(trace)})


def test_code_that_was_committed_is_that_of_its_commit(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    (repository / STAGE).write_text("print('trained')\n")
    assert checked_code(repository, evidence(repository, head)) == (f"that of commit {head[:12]}", [])


def test_code_that_was_changed_and_not_committed_is_a_warning(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    (repository / STAGE).write_text("print('trained without noise')\n")
    words, (found,) = checked_code(repository, evidence(repository, head))
    assert words == "not that of a commit: see the findings"
    assert (found.file, found.severity) == (TRACE, "warning")
    assert f"other code than that of commit {head[:12]}" in found.problem


@pytest.mark.parametrize("name", ["unknown", "0" * 40, "--all"])
def test_a_commit_that_is_not_here_is_a_warning(name: str, repository: Path) -> None:
    words, (found,) = checked_code(repository, evidence(repository, name))
    assert words == "not that of a commit: see the findings"
    assert (found.file, found.severity) == (TRACE, "warning")
    assert f"commit '{name}'" in found.problem and "is not here" in found.problem


def test_a_commit_that_is_not_here_hides_nothing_of_the_others(repository: Path) -> None:
    told = evidence(repository, "0" * 40)
    lock, made = json.loads(told.contents[LOCK]), json.loads(told.contents[PRUNING])
    lock["stages"]["calibrate"]["deps"].append({"path": STAGE, "md5": "0" * 32})
    made["made_by"] = {"commit": git(repository, "rev-parse", "HEAD"), "code": "0" * 64}
    files = {**told.contents, LOCK: canonical_json(lock), PRUNING: canonical_json(made)}
    not_here, other = checked_code(repository, read(files))[1]
    assert (not_here.file, other.file) == (TRACE, PRUNING)
    assert "is not here" in not_here.problem and "by other code" in other.problem


def test_outside_git_nothing_is_checked(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    words, found = checked_code(tmp_path_factory.mktemp("kept"), evidence(repository, "0" * 40))
    assert words.startswith("not checked: git cannot read") and "not a git repository" in words and not found


def test_code_that_a_partial_clone_lacks_is_a_warning(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    (repository / STAGE).write_text("print('trained again')\n")
    commit(repository, "two")
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(repository, "clone", "--quiet", "--filter=blob:none", f"file://{repository}", "partial")
    git(repository / "partial", "remote", "set-url", "origin", "file:///nowhere")
    words, (found,) = checked_code(repository / "partial", evidence(repository, head))
    assert words == "not that of a commit: see the findings" and found.severity == "warning"
    assert "whose code cannot be read here" in found.problem


def test_evidence_that_tells_no_code_says_so(repository: Path) -> None:
    assert checked_code(repository, read(files_of(BEFORE))) == ("not told", [])
