"""Noised sums over private units survive kills as one release, and what stops on the way is charged."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from checkout import LEDGER, edit_params
from private_choices import (
    ON_LINUX,
    OUTPUT,
    PLOT,
    chosen_privately,
    clear,
    entries,
    finished,
    kinds,
    ledger_of,
    output,
    put_away,
    ready_for,
)
from runs import give_key, injected, run_folder, stage, the_folder

from stages.privacy.events import event_from_json
from stages.profile import Profile
from stages.training.intents import read_begun


@pytest.fixture
def checkout(encoded_checkout: Path) -> Path:
    """Return a checkout in which everything is chosen and measured on private units."""
    return chosen_privately(encoded_checkout)


MOMENTS: list[dict[str, Any]] = [
    {"act": "half", "calls": ["fsync"], "path": r"/\.run\.key\."},
    {"act": "after", "calls": ["fsync"], "path": r"/intents\.jsonl$", "at": 1},
    {"act": "after", "calls": ["fsync"], "path": r"/intents\.jsonl$", "at": 1},
    {"act": "before", "calls": ["replace"], "path": r"OUTPUT$"},
    {"act": "after", "calls": ["replace"], "path": r"OUTPUT$"},
    {"act": "before", "calls": ["replace"], "path": r"/done\.json$"},
]
"""In making the key, before the reservation, then after it and before private rows are read, before and after
the output is there, and when the release is settled but not noted as finished. The first line of the intents
is written once, so the second kill meets it and the third one the line of the step."""


def outlives_kills(
    name: str, moments: list[int], checkout: Path, twin: Path, patch: pytest.MonkeyPatch
) -> None:
    """Kill a stage at some of ``MOMENTS``, let it end, and compare it with a twin that nobody kills."""
    for moment in moments:
        clear(checkout, name)
        order = {**MOMENTS[moment], "path": MOMENTS[moment]["path"].replace("OUTPUT", OUTPUT[name])}
        done = injected(checkout, name, **order)
        assert done.returncode == -signal.SIGKILL, done.stderr
    clear(checkout, name)
    finished(checkout, name)
    folder = the_folder(checkout, name)
    assert list(folder.glob(".*.partial")) == []
    assert kinds(entries(checkout, patch, name)) == ["reserve", "settle"], "one release, charged once"
    give_key(twin, (folder / "run.key").read_bytes(), folder.name, name)
    clear(twin, name)
    finished(twin, name)
    for path in {OUTPUT[name], PLOT.get(name, OUTPUT[name])}:
        assert (checkout / path).read_bytes() == (twin / path).read_bytes()


@pytest.mark.slow
@ON_LINUX
def test_killed_with_its_output_half_done_it_is_the_same_release(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    outlives_kills("profile", [3, 5], checkout, twin, monkeypatch)


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize("name", ["profile", "calibrate", "evaluate"])
def test_killed_at_any_moment_it_is_the_same_release(
    name: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready_for(name, checkout)
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    outlives_kills(name, list(range(len(MOMENTS))), checkout, twin, monkeypatch)


def not_public(checkout: Path, epsilon: float) -> Path:
    edit_params(
        checkout,
        {
            "  public: true": "  public: false",
            r"limit:(.*\n)    epsilon: \S+": rf"limit:\1    epsilon: {epsilon}",
        },
    )
    return checkout


def test_a_budget_that_does_not_suffice_is_refused_before_a_private_row_is_read(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that cannot be read tell: the refusal comes first; with budget enough, reading does."""
    for file in ("rows.parquet", "images.parquet"):
        path = checkout / "data/records/train" / file
        path.unlink()
        path.write_bytes(b"no record set")
    not_public(checkout, 1.0)
    refused = stage(checkout, "profile")
    assert refused.returncode == 2 and "over the limit of population 'tiny'" in refused.stderr
    assert entries(checkout, monkeypatch, "profile") == []
    assert read_begun(the_folder(checkout, "profile") / "intents.jsonl") == []
    edit_params(checkout, {r"limit:(.*\n)    epsilon: 1.0": r"limit:\1    epsilon: 12.0"})
    unread = stage(checkout, "profile")
    assert unread.returncode == 2 and "is no record set" in unread.stderr
    assert kinds(entries(checkout, monkeypatch, "profile")) == ["reserve"], "and charged, for it was begun"
    assert len(read_begun(the_folder(checkout, "profile") / "intents.jsonl")) == 1


@pytest.mark.slow
def test_half_precision_is_refused_for_people_who_are_not_public_before_anything_is_reserved(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(not_public(checkout, 12.0), {"precision: float32": "precision: bfloat16"})
    refused = stage(checkout, "profile")
    assert refused.returncode == 2 and "set model.precision to float32" in refused.stderr
    assert run_folder(checkout, "profile") is None
    assert entries(checkout, monkeypatch, "profile") == []


BEFORE_THE_STEP = {"act": "before", "calls": ["write"], "path": r"/intents\.jsonl$", "at": 2}
BEFORE_THE_OUTPUT = {"act": "before", "calls": ["replace"], "path": r"/profile\.json$"}


def pruned_to(dominant: int, checkout: Path) -> Path:
    """Give profile other inputs."""
    edit_params(checkout, {r"(with each layer's pruning\n)  dominant: \d+": rf"\g<1>  dominant: {dominant}"})
    return checkout


@ON_LINUX
@pytest.mark.slow
def test_a_release_that_never_ended_stays_charged_when_another_has_taken_its_place(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that was killed before it could read a private row is charged nothing."""
    done = injected(pruned_to(11, checkout), "profile", **BEFORE_THE_OUTPUT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    refused = stage(pruned_to(10, checkout), "profile")
    assert refused.returncode == 2 and "cannot go on, for its inputs have changed" in refused.stderr
    done = injected(checkout, "profile", new_release="1", **BEFORE_THE_STEP)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished(pruned_to(9, checkout), "profile")
    found = entries(checkout, monkeypatch, "profile")
    assert kinds(found) == ["reserve", "abandon", "reserve", "abandon", "reserve", "settle"]
    assert [entry.body.event["class"] for entry in found if entry.kind == "abandon"] == [
        "GaussianDpEvent",
        "NoOpDpEvent",
    ]
    put_away(checkout, monkeypatch)
    assert list((checkout / "scratch").rglob("run.key")) == []


@ON_LINUX
@pytest.mark.slow
def test_a_release_that_was_given_up_is_begun_anew_with_another_key(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = injected(checkout, "profile", **BEFORE_THE_OUTPUT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (reserved,) = entries(checkout, monkeypatch, "profile")
    event = event_from_json(reserved.body.event)
    ledger_of(checkout, monkeypatch).abandon("tiny", reserved.body.release, event, "given up")
    finished(checkout, "profile")
    assert output(checkout, "profile")["charge"]["release"] != reserved.body.release
    assert kinds(entries(checkout, monkeypatch, "profile")) == ["reserve", "abandon", "reserve", "settle"]


@ON_LINUX
@pytest.mark.slow
def test_going_on_is_no_spending_unless_the_ledger_has_lost_or_closed_the_release(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a flow would ask nobody, and the stage then refuse what nobody was asked about, for ever."""
    done = injected(checkout, "profile", **BEFORE_THE_OUTPUT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    monkeypatch.setenv("DUALPRIV_LEDGER", str(checkout / LEDGER))
    monkeypatch.chdir(checkout)

    def asks() -> bool:
        return Profile.load().spending() is not None

    assert not asks(), "it goes on"
    kept = Path(shutil.copy(LEDGER, tmp_path / "backup"))
    Path(LEDGER).unlink()
    ledger_of(checkout, monkeypatch)
    assert asks(), "a ledger of an earlier day was put back"
    shutil.copy(kept, LEDGER)
    (reserved,) = entries(checkout, monkeypatch, "profile")
    event = event_from_json(reserved.body.event)
    ledger_of(checkout, monkeypatch).abandon("tiny", reserved.body.release, event, "given up")
    assert asks()
