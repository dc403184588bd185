"""A small checkout whose choices and figures are made on private units, and what its ledger says of them."""

import json
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from checkout import LEDGER, edit_params
from runs import stage

from stages.core.params import read_params, read_section
from stages.ledger.ledger import Ledger
from stages.privacy.chain import Entry
from stages.privacy.population import Population
from stages.training.abandoned import abandon_runs, other_runs

OUTPUT = {
    "profile": "data/profile/profile.json",
    "calibrate": "data/calibrate/pruning.json",
    "evaluate": "data/evaluate/metrics.json",
}
PICTURE = {"profile": "data/profile/layers.png", "calibrate": "data/calibrate/patches.png"}
PLOT = {"profile": "data/profile/importance.csv", "calibrate": "data/calibrate/frontier.csv"}
SPLIT = {"profile": "train", "calibrate": "train", "evaluate": "heldout"}
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the injector asks /proc for paths")


def chosen_privately(encoded_checkout: Path) -> Path:
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
        runs = other_runs("profile", "none", population.name)
        abandon_runs(ledger, "profile", runs, population, "add_or_remove_one")


def kinds(found: list[Entry]) -> list[str]:
    return [entry.kind for entry in found]
