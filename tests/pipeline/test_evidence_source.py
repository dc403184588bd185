"""Evidence is read as it is written, from a folder or from any commit, and from nowhere else."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from pipeline.evidence_source import Checkout, Repository, Revision

PLAN = "data/plan.json"


def git(root: Path, *arguments: str) -> str:
    person = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *arguments], cwd=root, env={**os.environ, **person}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(root: Path, text: str) -> str:
    (root / "data").mkdir(exist_ok=True)
    (root / PLAN).write_text(text)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", text)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch=main", ".")
    return tmp_path


def test_every_commit_is_read_as_it_was_without_touching_the_checkout(repository: Path) -> None:
    first, second = commit(repository, "one"), commit(repository, "two")
    git_repository = Repository(repository)
    assert Revision(git_repository, first).read(PLAN) == b"one"
    assert Revision(git_repository, git_repository.commit("main")).read(PLAN) == b"two"
    assert Revision(git_repository, second).read("data/none.json") is None
    assert Checkout(repository).read(PLAN) == b"two"
    assert Checkout(repository).read("data/plan.json/x") is None


def test_commits_of_branches_and_of_experiments_are_found(repository: Path) -> None:
    kept = [commit(repository, "one")]
    git(repository, "checkout", "--quiet", "--detach")
    experiment = commit(repository, "experiment")
    git(repository, "update-ref", f"refs/exps/ab/{kept[0]}/tidy-newt", experiment)
    git(repository, "checkout", "--quiet", "main")
    lost = commit(repository, "amended away")
    git(repository, "reset", "--quiet", "--hard", kept[0])
    found = Repository(repository).commits()
    assert {*kept, experiment} == set(found)
    assert lost not in found, "what no ref reaches is out of reach; the documentation says so"


def test_a_replaced_commit_is_seen_as_it_was_cloned(repository: Path) -> None:
    honest = commit(repository, "honest")
    forged = commit(repository, "forged")
    git(repository, "replace", honest, forged)
    assert git(repository, "show", f"{honest}:{PLAN}") == "forged", "negative control: plain git is fooled"
    assert Revision(Repository(repository), honest).read(PLAN) == b"honest"


def test_a_commit_graph_that_hides_the_past_is_not_believed(repository: Path) -> None:
    kept = [commit(repository, "one"), commit(repository, "two"), commit(repository, "three")]
    git(repository, "commit-graph", "write", "--reachable")
    forget_parents(repository / ".git/objects/info/commit-graph")
    plain = git(repository, "-c", "core.commitGraph=true", "rev-list", "--all").split()
    assert len(plain) < 3, "negative control: plain git is fooled"
    assert {*kept} == {*Repository(repository).commits()}


def forget_parents(graph: Path) -> None:
    """Rewrite a commit graph so that no commit has a parent, with a checksum that fits."""
    content = bytearray(graph.read_bytes()[:-20])
    chunks = {
        bytes(content[at : at + 4]): int.from_bytes(content[at + 4 : at + 12])
        for at in range(8, 8 + 12 * content[6], 12)
    }
    commits = int.from_bytes(content[chunks[b"OIDF"] + 255 * 4 :][:4])
    for number in range(commits):
        parents = chunks[b"CDAT"] + number * 36 + 20
        content[parents : parents + 8] = (0x70000000).to_bytes(4) * 2
    graph.chmod(0o644)
    graph.write_bytes(content + hashlib.sha1(content).digest())


def loose(repository: Path, name: str) -> Path:
    return repository / f".git/objects/{name[:2]}/{name[2:]}"


def test_a_file_that_is_missing_from_the_history_is_no_file_that_never_was(repository: Path) -> None:
    first = commit(repository, "one")
    commit(repository, "two")
    loose(repository, git(repository, "rev-parse", f"{first}:{PLAN}")).unlink()
    assert "missing" in git_says(repository, "cat-file", "--batch-check", given=f"{first}:{PLAN}"), (
        "negative control: git tells the two apart in no other way"
    )
    with pytest.raises(
        ValueError, match=r"^the Git objects of .* are damaged \((missing|broken) .*clone it anew"
    ):
        Repository(repository).commits()


def test_an_object_that_is_another_than_its_name_says_is_refused(repository: Path) -> None:
    first, second = commit(repository, "one"), commit(repository, "two")
    blobs = [loose(repository, git(repository, "rev-parse", f"{name}:{PLAN}")) for name in (first, second)]
    blobs[0].chmod(0o644)
    blobs[0].write_bytes(blobs[1].read_bytes())
    assert git(repository, "show", f"{first}:{PLAN}") == "two", "negative control: plain git is fooled"
    with pytest.raises(ValueError, match=r"are damaged \(error: .*mismatch"):
        Repository(repository).commits()


def test_a_sound_repository_with_an_odd_commit_and_a_name_for_nothing_is_read(repository: Path) -> None:
    first = commit(repository, "one")
    undated = f"tree {git(repository, 'rev-parse', 'HEAD^{tree}')}\nparent {first}\n"
    undated += "author A <a@b> 99999999999999999999 +0000\ncommitter A <a@b> 1 +0000\n\nodd\n"
    odd = git_says(repository, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", given=undated)
    git(repository, "update-ref", "refs/heads/odd", odd.strip())
    git(repository, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/gone")
    assert subprocess.run(["git", "fsck"], cwd=repository, capture_output=True).returncode, "git complains"
    assert {*Repository(repository).commits()} == {first, odd.strip()}


def test_a_partial_clone_is_refused_with_the_way_out(repository: Path) -> None:
    commit(repository, "one"), commit(repository, "two")
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(repository, "clone", "--quiet", "--filter=blob:none", f"file://{repository}", "partial")
    with pytest.raises(ValueError, match="is a partial clone.*without --filter"):
        Repository(repository / "partial").commits()
    git(repository, "config", "remote.first.promisor", "false")
    git(repository, "config", "remote.second.promisor", "true")
    with pytest.raises(ValueError, match="is a partial clone"):  # of whichever remote
        Repository(repository).commits()


@pytest.mark.parametrize("setting", ["log.showRoot=false", "log.diffMerges=none", "diff.relative=true"])
def test_no_setting_of_the_repository_hides_a_folder(setting: str, repository: Path) -> None:
    (repository / "first").mkdir()
    commit(repository / "first", "first")
    git(repository, "checkout", "--quiet", "-b", "side")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "side")
    git(repository, "checkout", "--quiet", "main")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "main")
    git(repository, "merge", "--quiet", "--no-ff", "--no-commit", "side")
    (repository / "by_merge").mkdir()
    commit(repository / "by_merge", "merged")
    git(repository, "config", *setting.split("="))
    assert Repository(repository).folders_with([PLAN]) == ["by_merge/", "first/"]


def test_no_variable_of_the_reader_hides_a_folder(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(repository, "one")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert Repository(repository).folders_with([PLAN]) == [""]


def git_says(root: Path, *arguments: str, given: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, input=given, capture_output=True, text=True).stdout


def test_every_folder_that_ever_had_a_file_is_found(repository: Path) -> None:
    odd = "an odd-'name' [x]*/ü"
    (repository / odd).mkdir(parents=True)
    head = commit(repository / odd, "inner")
    (repository / "moved/data").mkdir(parents=True)
    git(repository, "mv", f"{odd}/{PLAN}", f"moved/{PLAN}")
    git(repository, "commit", "--quiet", "--message", "moved")
    (repository / "metadata").mkdir()
    (repository / "metadata/plan.json").write_text("none of ours")
    commit(repository, "top")
    found = Repository(repository).folders_with([PLAN, "data/ledger/*.json"])
    assert found == ["", f"{odd}/", "moved/"]
    inner = Repository(repository, elsewhere=f"{odd}/")
    assert Revision(inner, head).read(PLAN) == b"inner"
    assert (inner.names(head, "data"), inner.ever("data")) == (["plan.json"], [PLAN])
    assert Revision(Repository(repository), head).read(PLAN) is None


@pytest.mark.parametrize("folder", ["a\nb", "\na", "a\n"])
def test_a_folder_whose_name_breaks_a_line_is_refused(folder: str, repository: Path) -> None:
    (repository / folder).mkdir()
    commit(repository / folder, "inner")
    with pytest.raises(ValueError, match="under a name that breaks a line"):
        Repository(repository).folders_with([PLAN])


def test_a_shallow_clone_is_refused_with_the_way_out(repository: Path, tmp_path: Path) -> None:
    commit(repository, "one"), commit(repository, "two")
    git(repository, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    with pytest.raises(ValueError, match="is a shallow clone.*--unshallow"):
        Repository(repository / "shallow").commits()


@pytest.mark.parametrize("name", ["../plan.json", "/etc/hostname", "data/../plan.json", "HEAD:x", "a\nb", ""])
def test_a_path_that_leads_elsewhere_is_refused(name: str, repository: Path) -> None:
    head = commit(repository, "one")
    for source in (Checkout(repository), Revision(Repository(repository), head)):
        with pytest.raises(ValueError, match="is no plain path"):
            source.read(name)


def test_a_symbolic_link_is_refused_in_a_checkout(repository: Path) -> None:
    commit(repository, "one")
    (repository / "other.json").write_text("{}")
    (repository / "data/trace.json").symlink_to("../other.json")
    (repository / "linked").symlink_to("data")
    for name in ("data/trace.json", "linked/plan.json"):
        with pytest.raises(ValueError, match="symbolic link"):
            Checkout(repository).read(name)
    with pytest.raises(ValueError, match="data is not a file"):
        Checkout(repository).read("data")


@pytest.mark.parametrize("revision", ["--all", "no-such-branch", "HEAD:data/plan.json", "a\nb", ""])
def test_an_unknown_revision_is_one_sentence(revision: str, repository: Path) -> None:
    commit(repository, "one")
    with pytest.raises(ValueError, match="is not a Git revision"):
        Repository(repository).commit(revision)


def test_a_folder_outside_git_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^git cannot read .*not a git repository"):
        Repository(tmp_path).commit("HEAD")


def test_a_checkout_below_the_top_of_its_repository_is_read_by_its_own_paths(repository: Path) -> None:
    below = repository / "below"
    below.mkdir()
    head = commit(below, "inner")
    assert Revision(Repository(below), head).read(PLAN) == b"inner"
    assert Revision(Repository(repository), head).read(PLAN) is None


def test_many_files_are_read_at_once_whatever_they_hold(repository: Path) -> None:
    (repository / "empty").write_bytes(b"")
    (repository / "lines").write_bytes(b"7\n\n12\n")
    head = commit(repository, "one")
    revision = Revision(Repository(repository), head)
    assert revision.read_all(["lines", "none", "empty", PLAN]) == {
        "lines": b"7\n\n12\n",
        "empty": b"",
        PLAN: b"one",
    }
    assert revision.read_all([]) == {}
