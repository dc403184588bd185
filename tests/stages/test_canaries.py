"""Canaries from ingest to the audit: who is planted, what is guessed, and what can be found at all."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkout import edit_params, run
from clinic import clinic, record, write_params, write_records

from models import PRUNED, rows, trainable
from pipeline.audit import audit
from stages.canaries import Canaries
from stages.core.files import read_json
from stages.evaluation.losses import losses_of_rows
from stages.ingest import Ingest
from stages.ledger.ledger import Ledger
from stages.ledger.population_key import PopulationKey
from stages.privacy.canary_settings import CanarySettings
from stages.privacy.one_run_bound import Guesses, epsilon_lower_bound, guess
from stages.records.canaries import KIND, is_planted, planned_canaries
from stages.records.encoded import collate, read_encoded, write_encoded
from stages.records.store import read_rows
from stages.trainable.adapters import attach, load_adapter
from stages.vlm.encoder import encode_set
from stages.vlm.family import load

FOUND = Path("data/canaries/canaries.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory for stage ingest."""
    return clinic(tmp_path, monkeypatch)


def test_canaries_join_the_training_rows_by_coins_and_are_nobodys_units(folder: Path) -> None:
    Ingest.load().run()
    records = folder / "data" / "records"
    before = {name: read_rows(records / name) for name in ("train", "heldout", "public")}
    assert read_rows(records / "canaries") == []
    entries = Ledger.load().entries("clinic")
    write_params(folder, canaries=100, max_units=140)
    Ingest.load().run()
    canaries, key = read_rows(records / "canaries"), Ledger.load().population_key("clinic")
    planted = [row for row in canaries if is_planted(row.unit, key)]
    assert len(canaries) == 200 and 60 < len(planted) < 140
    assert read_rows(records / "train") == before["train"] + planted
    assert {name: read_rows(records / name) for name in ("heldout", "public")} == {
        name: before[name] for name in ("heldout", "public")
    }
    assert not (records / "canaries" / "salt").exists(), "they are public, planted or not"
    assert Ledger.load().entries("clinic") == entries
    write_params(folder, canaries=100, name="research", max_units=140)
    write_records(folder / "private", [record(number, f"other {number}") for number in range(30)])
    Ingest.load().run()
    others = {row.unit for row in read_rows(records / "train")} & {row.unit for row in canaries}
    assert others != {row.unit for row in planted}, "another population has other coins"


def test_canaries_count_among_the_declared_units_and_keep_their_names_to_themselves(folder: Path) -> None:
    write_params(folder, canaries=20, max_units=59)
    with pytest.raises(ValueError, match="and the canaries have more units than population.max_units = 59"):
        Ingest.load().run()
    write_params(folder, canaries=20, max_units=60)
    Ingest.load().run()
    for source in ("private", "public"):
        write_records(folder / source, [record(number, f"canary-0-{number}") for number in range(30)])
        with pytest.raises(ValueError, match="named like a canary: set canaries.seed to another number"):
            Ingest.load().run()
        write_records(folder / source, [record(number, f"{source} {number}") for number in range(30)])


def test_the_result_is_what_single_rows_and_the_training_set_give(ran_checkout: Path) -> None:
    """The slow reference asks about one row at a time, and reads off who was trained on."""
    found = read_json(ran_checkout / FOUND)
    canaries = read_rows(ran_checkout / "data/records/canaries")
    encoded = read_encoded(ran_checkout / "data/encoded/canaries")
    trained_on = {row.unit for row in read_rows(ran_checkout / "data/records/train") if row.kind == KIND}
    loaded = load(ran_checkout / "models/backbone")

    def losses(model: torch.nn.Module) -> list[float]:
        with torch.no_grad():
            return [loaded.family.row_losses(model, collate(encoded, [row])).item() for row in range(16)]

    before, after = (
        losses(loaded.model),
        losses(load_adapter(loaded.model, ran_checkout / "models/adapter", loaded.family)),
    )
    fell = {row.unit: 0.0 for row in canaries}
    for row, old, new in zip(canaries, before, after, strict=True):
        fell[row.unit] += (old - new) / 2
    guesses = guess(np.array([*fell.values()]), np.array([unit in trained_on for unit in fell]), 2, 2)
    assert (found["canaries"], found["guessed_in"], found["guessed_out"]) == (8, 2, 2)
    assert found["right"] == guesses.right
    assert found["lower_bound"] == epsilon_lower_bound(guesses, found["delta"])
    assert found["adapter"] == read_json(ran_checkout / "data/finetune/trace.json")["adapter"]


def test_the_audit_and_the_report_quote_it(ran_checkout: Path) -> None:
    found = read_json(ran_checkout / FOUND)
    verdict = audit(ran_checkout)
    assert verdict["verdict"] == "pass", verdict["findings"]
    assert verdict["canaries"] == {key: value for key, value in found.items() if key != "adapter"}
    said = run(ran_checkout, sys.executable, "-m", "pipeline.cli", "audit").stdout
    words = (
        f"{found['right']} of 4 guesses about 8 canaries were right: with 95 % confidence epsilon is at least"
    )
    assert f"- canaries: {words}" in said
    for page in ("data/report/report.html", "models/release/README.md"):
        assert words in (ran_checkout / page).read_text()


@pytest.mark.slow
def test_a_run_without_canaries_says_so_and_passes_its_audit(ran_checkout: Path) -> None:
    edit_params(ran_checkout, {r"count: 8": "count: 0"})
    run(ran_checkout, sys.executable, "-m", "pipeline.cli", "repro", "--new-release")
    assert read_json(ran_checkout / FOUND)["canaries"] == 0
    assert not [row for row in read_rows(ran_checkout / "data/records/train") if row.kind == KIND]
    assert audit(ran_checkout)["verdict"] == "pass"
    assert (
        "no canaries were planted" in run(ran_checkout, sys.executable, "-m", "pipeline.cli", "audit").stdout
    )


@pytest.mark.parametrize(("sign", "right"), [(1.0, 12), (-1.0, 0)])
def test_scores_meet_the_coins_of_their_own_canaries(
    sign: float, right: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of 24 canaries sort otherwise than they count; scores that know the coins are all right."""
    key = PopulationKey(bytes(range(32)))  # fair coins: with another key they may all fall one way
    monkeypatch.setattr(Ledger, "population_key", lambda self, name: key)
    write_params(folder, canaries=24, max_units=100)
    Ingest.load().run()
    records = folder / "data/records"
    planted = {row.unit for row in read_rows(records / "train") if row.kind == KIND}
    units = list(dict.fromkeys(row.unit for row in read_rows(records / "canaries")))
    assert 6 <= len(planted) <= 18 and sorted(units) != units
    stage = Canaries(
        canaries=CanarySettings(count=24, rows_per_unit=2, words=3, guessed=0.5, seed=0),
        model=None,  # type: ignore[arg-type]
        trained_on=records / "train",
    )
    monkeypatch.setattr("stages.canaries.read_encoded", lambda path: SimpleNamespace(rows=units))
    scores_M = np.array([sign * (unit in planted) for unit in units])
    monkeypatch.setattr(Canaries, "_fall", lambda self, encoded: scores_M)
    assert stage._guesses() == Guesses(24, 12, right)
    (records / "train" / "owner").write_text("somebody else's")
    with pytest.raises(ValueError, match="is of another population than"):
        replace(stage, trained_on=records / "heldout")._guesses()


def test_a_set_of_no_canaries_is_written_and_read(tiny_llava: Path, tmp_path: Path) -> None:
    write_encoded(tmp_path / "none", encode_set(load(tiny_llava), [], PRUNED), None)
    assert len(read_encoded(tmp_path / "none").rows) == 0


def test_canaries_learned_by_heart_are_found_and_others_are_not(tiny_llava: Path) -> None:
    """What the attack can show at all: a model without privacy, taught half of the canaries."""
    settings = CanarySettings(count=120, rows_per_unit=1, words=3, guessed=0.5, seed=0)
    loaded = load(tiny_llava)
    encoded = encode_set(loaded, planned_canaries(settings, rows(9, rows_per_unit=3)), PRUNED)
    dice = np.random.default_rng(0)
    is_in_M = dice.random(120) < 0.5
    section = trainable(rank=4, alpha=8.0)
    model = attach(loaded.model, section, loaded.family, seed=0)
    before_M = losses_of_rows("before", model, loaded.family, encoded, 64)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    planted = collate(encoded, np.flatnonzero(is_in_M).tolist())
    for _ in range(60):
        optimizer.zero_grad()
        loaded.family.row_losses(model, planted).mean().backward()
        optimizer.step()
    fell_M = before_M - losses_of_rows("after", model, loaded.family, encoded, 50)
    assert epsilon_lower_bound(guess(fell_M, is_in_M, 30, 30), 1e-5) > 1
    others_M = dice.permutation(is_in_M)
    assert epsilon_lower_bound(guess(fell_M, others_M, 30, 30), 1e-5) == 0, "negative control: other coins"
