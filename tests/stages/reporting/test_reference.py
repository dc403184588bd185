"""A run without privacy is shown beside where one was named, and what is none is refused."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pipeline.git import git
from stages.core.files import read_json
from stages.privacy.evidence import METRICS, STATEMENT
from stages.report import Report
from stages.reporting.reference import Comparison, reference_of
from tests.stages.reporting.finished_run import write_run

NOBODY = ("-c", "user.name=t", "-c", "user.email=t@t")


@pytest.fixture(scope="module")
def finished(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reference") / "checkout"
    write_run(root, tiny_llava)
    git(root, "init", "--quiet")
    return root


@pytest.fixture
def checkout(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def kept(checkout: Path, ref: str, asked: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> str:
    """Keep a run like this one, without privacy and with changes of its statement, as DVC keeps one."""
    statement, metrics = read_json(checkout / STATEMENT), read_json(checkout / METRICS)
    other = {**statement, "epsilon": None, **changes}
    better = deepcopy(metrics)
    better["tuned"] |= asked
    better["tuned"]["all"] |= {"accuracy": 0.875, "low": 0.8125, "high": 0.9375}
    tree = []
    for file, value in ((STATEMENT, other), (METRICS, better)):
        path = checkout / "other.json"
        path.write_text(json.dumps(value))
        tree.append(f"100644,{git(checkout, 'hash-object', '-w', 'other.json')},{file}")
        path.unlink()
    git(checkout, "read-tree", "--empty")
    for entry in tree:
        git(checkout, "update-index", "--add", "--cacheinfo", entry)
    commit = git(checkout, *NOBODY, "commit-tree", git(checkout, "write-tree"), "-m", "run")
    git(checkout, "update-ref", ref, commit)
    git(checkout, "read-tree", "--empty")
    return commit


def test_an_experiment_without_privacy_is_on_the_page_and_on_the_card(checkout: Path) -> None:
    commit = kept(checkout, "refs/exps/ab/cdef/without")
    params = checkout / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("  nonprivate: null", "  nonprivate: without"))
    Report.load().run()
    page = (checkout / "data/report/report.html").read_text()
    card = (checkout / "models/release/README.md").read_text()
    for said in (page, card):
        assert "87.5" in said and "81.2 to 93.8" in said and commit[:12] in said
    params.write_text(before)
    Report.load().run()
    page = (checkout / "data/report/report.html").read_text()
    card = (checkout / "models/release/README.md").read_text()
    assert commit[:12] not in page + card and "not shown" in page and "87.5" not in card


@pytest.mark.parametrize(
    ("named", "changes", "said"),
    [
        ("with", {"epsilon": 7.5}, "whose statement says epsilon 7.5"),
        ("others", {"population": "ward 4"}, "a run on population 'ward 4'"),
        ("units", {"unit": "visit"}, "a run on unit 'visit'"),
        ("nowhere", None, "which is no commit, branch or experiment"),
        ("--all", None, "which is no commit, branch or experiment"),
    ],
)
def test_what_is_no_reference_is_refused(
    checkout: Path, named: str, changes: dict[str, Any] | None, said: str
) -> None:
    if changes is not None:
        kept(checkout, f"refs/heads/{named}", **changes)
    with pytest.raises(ValueError, match=said) as refused:
        reference_of(Comparison(nonprivate=named), Path(STATEMENT), Path(METRICS))
    assert "set it to null" in str(refused.value)


def test_other_questions_and_a_run_that_did_not_end_are_refused(checkout: Path) -> None:
    kept(checkout, "refs/heads/colors", asked={"color": {"accuracy": 0.5}})
    with pytest.raises(ValueError, match=r"other kinds of questions .*color"):
        reference_of(Comparison(nonprivate="colors"), Path(STATEMENT), Path(METRICS))
    empty = git(checkout, *NOBODY, "commit-tree", git(checkout, "write-tree"), "-m", "nothing")
    with pytest.raises(ValueError, match="holds no readable data/account/statement.json"):
        reference_of(Comparison(nonprivate=empty), Path(STATEMENT), Path(METRICS))
