"""``--all-revs`` finds every distinct release on every ref, counts it once, and composes them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from forging import OTHERS
from honest_evidence import Run, entries_of
from stored_evidence import edited, stored, written

from pipeline.audit import audit
from stages.core.canonical import canonical_json
from stages.core.entry import quiet_accountants
from stages.privacy.accounting import epsilon_of, step_event
from stages.privacy.chain import chain_to_json
from stages.privacy.evidence import CHARGES, LOCK, PLAN, TRACE
from tests.pipeline.test_evidence_source import git

RELEASES = {
    "1.0": "9608d257b7434d6cc672b603300d0354",
    "1.1": "9f3a73bb93376e9c91a41bd63da11711",
    "1.2": "fe2ad8f904f1f34a795609d8915d08ae",
}
quiet_accountants()


def keep(root: Path, version: str, **more: bytes) -> str:
    """Commit the evidence of a version."""
    written(root, {**stored(version), **more})
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", version)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Return a repository with one release in the past, one in a DVC experiment and one in the checkout."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main", ".")
    (tmp_path / "README.md").write_text("nothing yet")
    git(tmp_path, "add", "--all"), git(tmp_path, "commit", "--quiet", "--message", "start")
    first = keep(tmp_path, "1.0")
    keep(tmp_path, "1.0")  # another commit of the same evidence
    git(tmp_path, "checkout", "--quiet", "--detach")
    git(tmp_path, "update-ref", f"refs/exps/aa/{first}/tidy-newt", keep(tmp_path, "1.1"))
    git(tmp_path, "checkout", "--quiet", "main")
    keep(tmp_path, "1.2")
    return tmp_path


def counted(verdict):
    (population,) = verdict["all_revisions"]["populations"]
    return population


def test_every_release_of_every_ref_is_counted_once(history: Path) -> None:
    verdict = audit(history, history=True)
    found = counted(verdict)
    assert {release["release"] for release in found["releases"]} == set(RELEASES.values())
    assert len(found["releases"]) == 3
    assert (verdict["all_revisions"]["commits"], verdict["all_revisions"]["states"]) == (5, 3)
    assert verdict["verdict"] == "pass", "a public population: what the ledger does not hold is a warning"


def test_the_total_is_that_of_all_steps_together(history: Path) -> None:
    (total,) = counted(audit(history, history=True))["recomputed"]
    together = step_event(0.125, 0.846, 120)
    assert abs(total["epsilon"] - epsilon_of([together], 1e-5, "add_or_remove_one")) < 1e-3
    assert total["epsilon"] > audit(history)["epsilon"] + 4, "negative control: more than one release spends"
    assert isinstance(together, dp_accounting.SelfComposedDpEvent)


def test_a_release_that_another_commit_charges_otherwise_is_an_error(history: Path) -> None:
    def cheaper(charges):
        charges["charges"][2]["event"]["event"]["event"]["noise_multiplier"] = 8.46

    written(history, edited(stored("1.2"), CHARGES, cheaper))
    git(history, "commit", "--quiet", "--all", "--message", "cheaper")
    written(history, stored("1.2"))
    found = [
        finding for finding in audit(history, history=True)["findings"] if finding["severity"] == "error"
    ]
    assert len(found) == 1 and found[0]["revision"] == git(history, "rev-parse", "HEAD")
    assert (
        f"charges release '{RELEASES['1.2']}' otherwise than the evidence asked about" in found[0]["problem"]
    )


def test_a_trace_whose_release_no_charge_covers_is_named(history: Path) -> None:
    files = edited(stored("1.2"), TRACE, lambda trace: trace.update(release="ab" * 16))
    written(history, files)
    git(history, "commit", "--quiet", "--all", "--message", "not accounted")
    written(history, stored("1.2"))
    problems = [finding["problem"] for finding in audit(history, history=True)["findings"]]
    assert f"shows release '{'ab' * 16}', which no charge covers" in problems


@pytest.mark.parametrize("public", [True, False])
def test_old_evidence_that_cannot_be_read_is_as_bad_as_its_population_is_private(
    public: bool, history: Path
) -> None:
    def declare(plan):
        plan["population"].update(public=public, name="others")

    broken = {**edited(stored("1.2"), PLAN, declare), CHARGES: b"{"}
    written(history, broken)
    git(history, "commit", "--quiet", "--all", "--message", "broken")
    written(history, stored("1.2"))
    verdict = audit(history, history=True)
    (found,) = [finding for finding in verdict["findings"] if "is not valid JSON" in finding["problem"]]
    assert found["file"] == CHARGES and found["revision"] == git(history, "rev-parse", "HEAD")
    assert found["severity"] == ("warning" if public else "error")


def test_incomplete_evidence_of_the_past_still_shows_its_releases(history: Path) -> None:
    for name in (PLAN, LOCK):
        (history / name).unlink()
    git(history, "commit", "--quiet", "--all", "--message", "half")
    written(history, stored("1.2"))
    assert len(counted(audit(history, history=True))["releases"]) == 3


def test_a_ledger_that_was_exported_and_removed_counts(history: Path) -> None:
    others = chain_to_json(OTHERS.name, entries_of(Run(population=OTHERS, crashed=("crashed",))))
    written(history, {"data/ledger/others.json": canonical_json(others)})
    git(history, "add", "--all"), git(history, "commit", "--quiet", "--message", "export")
    (
        git(history, "rm", "--quiet", "data/ledger/others.json"),
        git(history, "commit", "--quiet", "--message", "gone"),
    )
    verdict = audit(history, history=True)
    (found,) = [one for one in verdict["all_revisions"]["populations"] if one["population"] == OTHERS.name]
    assert [release["ledger"] for release in found["releases"]] == [
        "abandoned",
        "settled",
        "settled",
        "settled",
    ]
    assert found["filter"]["epsilon"] < 12
    assert [price["what"] for price in found["recomputed"]] == [
        "all releases, heldout (1)",
        "all releases, train (3)",
    ]


def test_a_broken_export_is_named(history: Path) -> None:
    others = chain_to_json(OTHERS.name, entries_of(Run(population=OTHERS)))
    del others["entries"][2]
    written(history, {"data/ledger/others.json": canonical_json(others)})
    found = [one for one in audit(history)["findings"] if one["severity"] == "error"]
    assert [one["file"] for one in found] == ["data/ledger/others.json"]
    assert "is broken" in found[0]["problem"]


def test_evidence_counts_in_whatever_folder_it_lay(history: Path) -> None:
    (history / "moved").mkdir()
    git(history, "mv", "data", "dvc.lock", "moved"), git(history, "commit", "--quiet", "--message", "moved")
    found = counted(audit(history / "moved", history=True))
    assert {release["release"] for release in found["releases"]} == {*RELEASES.values()}
    first = {release["release"]: release["first_seen"] for release in found["releases"]}
    assert first[RELEASES["1.0"]].endswith(":."), "by the folder that it lay in, the top"
    (history / "sibling").mkdir()
    keep(history / "sibling", "2.1")
    found = counted(audit(history / "moved", history=True))
    trained = {release["release"] for release in found["releases"] if release["first_seen"]}
    assert trained == {*RELEASES.values(), "564eed53a8df7e7e5d25ad07c8f6c1ed"}, "and where it lies still"


@pytest.mark.parametrize("left_behind", ["nothing", "evidence", "ledger"])
def test_a_ledger_that_was_cut_by_moving_is_told(left_behind: str, history: Path) -> None:
    whole = chain_to_json(OTHERS.name, entries_of(Run(population=OTHERS, crashed=("crashed",))))
    written(history, {"data/ledger/others.json": canonical_json(whole)})
    git(history, "add", "--all"), git(history, "commit", "--quiet", "--message", "whole")
    (history / "moved").mkdir()
    git(history, "mv", "data", "dvc.lock", "moved")
    if left_behind == "evidence":
        written(history, stored("1.2"))
    elif left_behind == "ledger":
        written(history, {"data/ledger/others.json": canonical_json(whole)})
    cut = chain_to_json(OTHERS.name, entries_of(Run(population=OTHERS)))
    written(history / "moved", {"data/ledger/others.json": canonical_json(cut)})
    git(history, "add", "--all"), git(history, "commit", "--quiet", "--message", "moved")
    found = [one for one in audit(history / "moved", history=True)["findings"] if "entries" in one["problem"]]
    told = [(one["severity"], one["problem"].partition(":")[0]) for one in found]
    assert told == [("error", "was cut") if left_behind == "nothing" else ("warning", "is not the latest")]


@pytest.mark.parametrize("shown_here", [True, False])
def test_a_broken_ledger_of_a_project_beside_is_as_bad_as_its_people_are_ours(
    shown_here: bool, history: Path
) -> None:
    sound = chain_to_json(OTHERS.name, entries_of(Run(population=OTHERS)))
    broken = {**sound, "entries": sound["entries"][:1] + sound["entries"][2:]}
    (history / "beside").mkdir()
    written(history / "beside", {**stored("1.2"), "data/ledger/others.json": canonical_json(broken)})
    if shown_here:
        written(history, {"data/ledger/others.json": canonical_json(sound)})
    git(history, "add", "--all"), git(history, "commit", "--quiet", "--message", "beside")
    found = [one for one in audit(history, history=True)["findings"] if "is broken" in one["problem"]]
    assert found and ("error" in [one["severity"] for one in found]) == shown_here
    assert all(one["revision"].endswith(":beside/") for one in found)


@pytest.mark.parametrize("public", [True, False])
def test_what_only_a_ledger_that_was_begun_anew_knows_counts_too(public: bool, history: Path) -> None:
    people = replace(OTHERS, public=public)
    told: dict[str, Any] = {}
    for run in (Run(population=people, release="first"), Run(population=people, crashed=("second",))):
        chain = chain_to_json(people.name, entries_of(run))
        written(history, {"data/ledger/others.json": canonical_json(chain)})
        git(history, "add", "--all"), git(history, "commit", "--quiet", "--message", "export")
        told = audit(history, history=True)
    (found,) = [one for one in told["all_revisions"]["populations"] if one["population"] == people.name]
    assert [release["ledger"] for release in found["releases"]].count("settled") == 6
    priced = ["all releases, heldout (2)", "all releases, train (5)"]
    assert [price["what"] for price in found["recomputed"]] == ([] if public else priced), (
        "a limit has a delta"
    )
    (fork,) = [one for one in told["findings"] if "is another chain of population" in one["problem"]]
    assert fork["severity"] == ("warning" if public else "error")
