"""What profile, calibrate and evaluate release of private units is noised, charged once, and nothing else.

They run as processes, without DVC where DVC adds nothing, in a small checkout of 24 units.
"""

import json
import shutil
import signal
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from checkout import LEDGER, dvc, edit_params
from runs import give_key, injected, run_folder, stage, the_folder

from stages.core.params import read_params, read_section
from stages.ledger.ledger import Ledger
from stages.privacy.chain import Entry
from stages.privacy.events import event_from_json
from stages.privacy.population import Population
from stages.privacy.stream import RunKey, Streams
from stages.profile import ProfileSettings
from stages.records.row import rows_by_unit
from stages.records.store import read_rows
from stages.training.abandoned import abandon_others
from stages.training.intents import read_begun
from stages.vlm.encoder import Rule
from stages.vlm.family import load
from stages.vlm.fidelity import Sample
from tests.guarantees.test_run_key import found_in, spellings

OUTPUT = {
    "profile": "data/profile/profile.json",
    "calibrate": "data/calibrate/calibration.json",
    "evaluate": "data/evaluate/metrics.json",
}
PLOT = {"profile": "data/profile/importance.csv", "calibrate": "data/calibrate/fidelity.csv"}
SPLIT = {"profile": "train", "calibrate": "train", "evaluate": "heldout"}
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the injector asks /proc for paths")


@pytest.fixture
def checkout(encoded_checkout: Path) -> Path:
    """Return a checkout in which everything is chosen and measured on private units."""
    edit_params(
        encoded_checkout,
        {
            r"on: public ": "on: train ",
            r"release: public ": "release: private ",
            r"kinds: \[\]": "kinds: [digit, parity]",
            r"expected_units: \S+": "expected_units: 20.0",
            r"noise_multiplier: \S+": "noise_multiplier: 4.0",
        },
    )
    return encoded_checkout


def ready_for(name: str, checkout: Path) -> Path:
    """Run what a stage needs."""
    if name == "evaluate":
        finished(checkout, "finetune")
    return checkout


def finished(checkout: Path, name: str, **more: str) -> None:
    done = stage(checkout, name, **more)
    assert done.returncode == 0, done.stderr


def output(checkout: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((checkout / OUTPUT[name]).read_text()))


def clear(checkout: Path, name: str) -> None:
    """Remove what a stage writes, as DVC does before it runs one."""
    for path in (OUTPUT[name], PLOT.get(name)):
        if path is not None:
            (checkout / path).unlink(missing_ok=True)


def ledger_of(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("DUALPRIV_LEDGER", str(checkout / LEDGER))
    with chdir(checkout):
        return Ledger.load()


def entries(checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> list[Entry]:
    """Return the entries about releases of a stage, in order."""
    found = ledger_of(checkout, monkeypatch).entries("tiny")
    releases = [entry.body.release for entry in found if entry.kind == "reserve" and entry.body.stage == name]
    return [entry for entry in found if getattr(entry.body, "release", None) in releases]


def put_away(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do with all runs of profile what the next one does with those before it."""
    ledger = ledger_of(checkout, monkeypatch)
    with chdir(checkout):
        population = read_section(read_params(), "population", Population)
        abandon_others(ledger, "profile", "none", population, "add_or_remove_one")


def kinds(found: list[Entry]) -> list[str]:
    return [entry.kind for entry in found]


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
                rule = Rule(select="dominant_contextual", layer=layer, dominant=12, contextual=4)
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
    assert set(found) == {"version", "records", "layers", "chosen", "charge", "mechanism", "made_by"}
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
    assert set(settle.released) == {OUTPUT[name], *([PLOT[name]] if name in PLOT else [])}


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
