"""What profile, calibrate and evaluate release of private units is noised, charged once, and nothing else.

They run as processes, without DVC where DVC adds nothing, in a small checkout of 24 units.
"""

import shutil
from pathlib import Path

import pytest
from checkout import LEDGER, dvc, edit_params
from private_choices import (
    OUTPUT,
    PICTURE,
    PLOT,
    SPLIT,
    chosen_privately,
    clear,
    entries,
    finished,
    kinds,
    output,
    put_away,
    ready_for,
)
from runs import give_key, stage, the_folder

from stages.core.params import read_params, read_section
from stages.privacy.stream import RunKey, Streams
from stages.profile import ProfileSettings
from stages.records.row import rows_by_unit
from stages.records.store import read_rows
from stages.vlm.family import load
from stages.vlm.fidelity import Sample
from stages.vlm.selection import Rule
from tests.guarantees.test_run_key import found_in, spellings


@pytest.fixture
def checkout(encoded_checkout: Path) -> Path:
    """Return a checkout in which everything is chosen and measured on private units."""
    return chosen_privately(encoded_checkout)


def test_the_release_is_a_slow_reference_plus_the_noise_of_its_key(checkout: Path) -> None:
    """One unit and one row at a time, plain sums: what the artifact says is that and nothing else."""
    clear(checkout, "profile")
    finished(checkout, "profile")
    found, folder = output(checkout, "profile"), the_folder(checkout, "profile")
    settings = read_section(read_params(checkout / "params.yaml"), "profile", ProfileSettings)
    mechanism = settings.private
    streams = Streams(RunKey((folder / "run.key").read_bytes()), folder.name, "profile")
    loaded, rows = load(checkout / "models/backbone"), read_rows(checkout / "data/records/train")
    layers = loaded.family.scored_layers(loaded.model)
    total = [0.0] * len(layers)
    for unit in mechanism.sample(rows_by_unit(rows), streams):
        said = [0.0] * len(layers)
        for row in unit:
            sample = Sample.of(loaded, [rows[row]], layers, 1)
            for layer in layers:
                rule = Rule(
                    select="dominant_contextual", merge="cluster", layer=layer, dominant=12, contextual=4
                )
                value = float(sample.answers(rule).log_likelihood_R)
                said[layer] += max(-mechanism.clip, value) / len(unit)
        norm = sum(value * value for value in said) ** 0.5
        total = [
            sum_ + value * min(1.0, mechanism.clip / norm) for sum_, value in zip(total, said, strict=True)
        ]
    noise = streams.at("noise", 0, "sum").gaussian(len(layers))
    expected = [
        (value + mechanism.deviation * drawn) / 20.0 for value, drawn in zip(total, noise, strict=True)
    ]
    noised = [entry["log_likelihood"] for entry in found["layers"]]
    assert noised == pytest.approx(expected, abs=1e-5)
    assert noised != pytest.approx([value / 20.0 for value in total], abs=1e-3), "there is noise"
    assert found["chosen"] == noised.index(max(noised)), "the choice is made from noised values"
    assert [set(entry) for entry in found["layers"]] == [{"layer", "log_likelihood"}] * 3
    parts = {"version", "records", "layers", "chosen", "reason", "charge", "mechanism", "made_by"}
    assert set(found) == parts
    assert (checkout / PLOT["profile"]).read_text().splitlines() == [
        "layer,log_likelihood",
        *(f"{layer},{value:.6f}" for layer, value in enumerate(noised)),
    ]


@pytest.mark.parametrize("name", ["profile", pytest.param("evaluate", marks=pytest.mark.slow)])
def test_the_charge_is_what_the_ledger_reserved_and_settled(
    name: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(ready_for(name, checkout), {r"private:( .*)?\n    rate: 1\.0": "private:\n    rate: 0.5"})
    finished(checkout, name)
    found = output(checkout, name)
    charge = found["charge"]
    assert {key: charge[key] for key in ("stage", "split", "population", "unit", "relation", "sampler")} == {
        "stage": name,
        "split": SPLIT[name],
        "population": "tiny",
        "unit": "image",
        "relation": "add_or_remove_one",
        "sampler": "poisson",
    }
    gaussian = {"class": "GaussianDpEvent", "noise_multiplier": 4.0}
    event = {"class": "PoissonSampledDpEvent", "sampling_probability": 0.5, "event": gaussian}
    assert charge["event"] == event
    reserve, settle = (entry.body for entry in entries(checkout, monkeypatch, name))
    assert (reserve.release, reserve.event) == (settle.release, settle.event) == (charge["release"], event)
    assert (reserve.split, reserve.sampler) == (SPLIT[name], "poisson")
    assert (settle.code, settle.commit) == (found["made_by"]["code"], found["made_by"]["commit"])
    drawn = [files[name] for files in (PLOT, PICTURE) if name in files]
    assert set(settle.released) == {OUTPUT[name], *drawn}


@pytest.mark.slow
def test_a_forced_rerun_is_a_fresh_release_and_no_key_is_found_or_kept(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc(checkout, "repro", "--single-item", "profile")
    keys, first = [(the_folder(checkout, "profile") / "run.key").read_bytes()], output(checkout, "profile")
    log = dvc(checkout, "repro", "--force", "--single-item", "profile", "--verbose")
    keys, second = (
        [*keys, (the_folder(checkout, "profile") / "run.key").read_bytes()],
        output(checkout, "profile"),
    )
    assert first["charge"]["release"] != second["charge"]["release"] and keys[0] != keys[1]
    assert first["layers"] != second["layers"]
    assert kinds(entries(checkout, monkeypatch, "profile")) == ["reserve", "settle"] * 2
    (checkout / "run.log").write_text(log.stdout + log.stderr)
    shutil.copy(checkout / LEDGER, checkout / "ledger.db")
    for key in keys:
        assert found_in(checkout, key) == []
    (checkout / "planted").write_text(keys[1].hex())
    assert found_in(checkout, keys[1]) == ["planted: hex"], "the control must be found"
    left = [path.read_bytes() for path in (checkout / "scratch").rglob("*") if path.is_file()]
    assert not any(text in content for content in left for text in spellings(keys[0]).values()), "destroyed"
    put_away(checkout, monkeypatch)
    assert list((checkout / "scratch").rglob("run.key")) == []
    kept = {path.name for path in (checkout / "scratch/profile/retired").iterdir()}
    assert kept == {first["charge"]["release"], second["charge"]["release"]}
    assert kinds(entries(checkout, monkeypatch, "profile")) == ["reserve", "settle"] * 2


@pytest.mark.slow
def test_when_noise_leaves_no_budget_that_is_enough_the_largest_is_taken_and_said(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model is never right, so the noise alone decides: a key is looked for that leaves none."""
    edit_params(checkout, {r"fidelity: \S+": "fidelity: 0.9"})
    stage(checkout, "calibrate")
    folder = the_folder(checkout, "calibrate")
    shutil.rmtree(folder)
    for number in range(10_000):
        key = RunKey(number.to_bytes(32, "big"))
        noise = Streams(key, folder.name, "calibrate").at("noise", 0, "sum").gaussian(3)
        if noise.min() > 0.5:  # all tokens answer well, and every candidate loses much of it
            break
    give_key(checkout, key.secret, folder.name, "calibrate")
    done = stage(checkout, "calibrate")
    assert done.returncode == 0 and "no candidate keeps 90%" in done.stdout, done.stderr
    found = output(checkout, "calibrate")
    assert found["chosen"]["dominant"] == found["candidates"][-1]["dominant"] == 12
    assert kinds(entries(checkout, monkeypatch, "calibrate"))[2:] == ["reserve", "settle"]


@pytest.mark.slow
def test_noised_metrics_count_declared_kinds_of_both_models(checkout: Path) -> None:
    edit_params(
        ready_for("evaluate", checkout),
        {"noise_multiplier: 4.0\n    kinds": "noise_multiplier: 1.0e-6\n    kinds"},
    )
    finished(checkout, "evaluate")
    noised = output(checkout, "evaluate")
    edit_params(checkout, {"release: private ": "release: public "})
    finished(checkout, "evaluate")
    exact = output(checkout, "evaluate")
    assert exact["charge"]["event"] == {"class": "NoOpDpEvent"} and exact["charge"]["release"] is None
    assert exact["charge"]["basis"] == "held-out records are declared public"
    for model in ("zero_shot", "tuned"):
        assert set(noised[model]) == {"digit", "parity", "other", "all"}
        for kind, named in (
            ("digit", "digit"),
            ("parity", "parity"),
            ("comparison", "other"),
            ("all", "all"),
        ):
            for key in ("rows", "correct"):
                assert noised[model][named][key] == pytest.approx(exact[model][kind][key], abs=1e-3)
                assert isinstance(exact[model][kind][key], int) and isinstance(
                    noised[model][named][key], float
                )
