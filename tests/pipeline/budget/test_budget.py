"""``dualpriv budget``: what it says, what it refuses, and that it touches nothing private."""

import json
import os
import sys
from pathlib import Path

import pytest
from checkout import edit_params, run
from commands import Command

from pipeline.budget.shown import show
from pipeline.budget.timing import Timing
from pipeline.too_small import guess_bound
from tests.pipeline.budget.conftest import PEOPLE

QUICK = ("--no-time", "--batch", "800", "--steps", "5", "--epsilon", "2")
"""One option that is solved in a moment."""


def test_a_budget_is_told_with_its_reason_and_makes_nothing(
    dualpriv: Command, folder: Path, ledger_file: Path
) -> None:
    edit_params(folder, PEOPLE)
    before = sorted(folder.rglob("*"))
    status, said, _ = dualpriv("budget", *QUICK, "--weights", "500")
    assert status == 0
    for sentence in (
        "Population people, at most 1000 units (person), of which about 800 are trained on; epsilon 2 at",
        "Ledger: all of epsilon 12 at delta 1e-05 is left: nothing was reserved yet.",
        "Time is not predicted: --no-time was said.",
        "Ask yourself: does any unit have more than 2 rows?",
        "Recommended: batch 800 in 5 steps. In params.yaml: sampling.steps: 5, sampling.rate: 1, "
        "sampling.expected_batch: 800.0.",
        "limited by the units: every one joins each step, so no batch is larger",
        "Nothing was spent: nothing is reserved or released, and no private record was read",
    ):
        assert sentence in said
    assert sorted(folder.rglob("*")) == before and not ledger_file.exists()


def test_the_guess_bound_is_not_rounded_to_certainty(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Right in e^10 of e^10 + 1 cases, 99.99546 %: what is said is more, and is no 100 %."""
    found = {
        "population": {"name": "people", "max_units": 1000, "unit": "person"},
        "target": {"epsilon": 10.0, "delta": 1e-9, "relation": "add_or_remove_one"},
        "trained_units": 800.0,
        "estimator": "gradient",
        "slopes": None,
        "guess_bound": guess_bound(10.0, 1e-9),
        "ledger": {"says": "nothing"},
        "spends": "nothing was spent",
        "recommended": None,
    }
    show(found | {key: [] for key in ("weights", "beside", "reasons")} | {"predicted": {}}, 2)
    assert "can be right in 99.9955% of cases at most" in capsys.readouterr().out


def test_what_it_recommends_is_the_plan_that_params_yaml_would_give(dualpriv: Command, folder: Path) -> None:
    from stages.core.params import read_params
    from stages.training.rehearsal import Rehearsal

    edit_params(folder, PEOPLE)
    _, said, _ = dualpriv("budget", *QUICK, "--weights", "500", "--json")
    found = json.loads(said)
    params = read_params()
    params["sampling"] = found["recommended"]
    params["privacy"]["epsilon"] = 2.0
    assert Rehearsal.of(params).plan().noise_multiplier == found["options"][0]["noise_multiplier"]


@pytest.mark.slow
def test_weights_and_memory_follow_from_the_config_alone(dualpriv: Command, folder: Path) -> None:
    from stages.core.params import read_params, read_section
    from stages.trainable.adapters import count_weights
    from stages.trainable.settings import Trainable
    from stages.vlm.family import family_of, outline

    status, said, _ = dualpriv("budget", *QUICK, "--json", "--units", "1000")
    found = json.loads(said)
    path = Path("models/pretrained")
    trainable = read_section(read_params(), "trainable", Trainable)
    assert status == 0
    assert found["weights"] == [count_weights(outline(path), trainable, family_of(path))]
    _, memory, _ = dualpriv("memory", "--model", "models/pretrained", "--batch", "128", "--json")
    noise = 8 * found["weights"][0] / 2**30  # beside a GPU it waits in other memory
    beside_a_gpu = json.loads(memory)["methods"][0]["peak_gib"]
    assert found["options"][0]["peak_gib"] == pytest.approx(beside_a_gpu + noise, rel=1e-12)
    assert found["options"][0]["ledger"] == {"passes": None, "refused": None}, "a public population"


@pytest.mark.slow
def test_what_is_too_small_is_warned_of_before_all_else(dualpriv: Command, folder: Path) -> None:
    edit_params(folder, PEOPLE)
    status, said, error = dualpriv(
        *("budget", "--no-time", "--batch", "800", "--steps", "5", "--epsilon", "11"),
        *("--delta", "0.0005", "--weights", "90000000", "--json"),
    )
    starts = (
        "privacy.delta 0.0005 is large",
        "epsilon 11 protects nothing",
        "population.max_units 1000 is too",
    )
    assert all(
        warning.startswith(start) for warning, start in zip(json.loads(said)["warnings"], starts, strict=True)
    )
    assert error.count("budget: WARNING: ") == 3
    assert status == 1 and "the ledger says: over the limit" in said, "at the ledger's delta it is more"
    assert "rows_per_unit" not in said, "what only the holder knows is asked on the terminal alone"


def test_where_nothing_fits_it_says_why_and_ends_with_1(dualpriv: Command, folder: Path) -> None:
    status, said, _ = dualpriv("budget", *QUICK, "--units", "1000", "--gib", "0.001")
    assert status == 1
    assert "- no option can be run: each is beyond the memory limit of 0.001 GiB" in said


def test_without_a_prepared_checkout_it_says_how_time_can_be_predicted(
    dualpriv: Command, folder: Path
) -> None:
    status, said, _ = dualpriv("budget", *QUICK[1:], "--units", "1000", "--weights", "500")
    assert status == 0
    assert "Time is not predicted: models/backbone is not here" in said
    assert "`dualpriv repro calibrate` prepares it." in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--batch", "5,x"), "--batch '5,x': 'x' is no such number; it takes numbers from 1"),
        (("--steps", "0"), "--steps '0': '0' is no such number"),
        (("--steps", "9:3"), "--steps 9:3: a range goes upwards"),
        (("--weights", "many"), "--weights 'many'"),
        (
            ("--batch", "6000"),
            "--batch 6000: a batch of 6000 units is more than the 4800 that are trained on",
        ),
        (("--units", "0"), "population.max_units must be at least 1, got 0"),
        (("--units", "1", "--weights", "5"), "of the declared units 0.8 are trained on, which is not one"),
        (("--epsilon", "-1"), "privacy.epsilon must be positive and finite"),
        (("--delta", "1.5"), "privacy.delta must lie in [0, 1)"),
        (("--delta", "0.001"), "privacy.delta 0.001 must be below 1 / population.max_units"),
        (("--delta", "0"), "privacy.delta 0 asks for a pure epsilon, which Gaussian noise never gives"),
        (("--hours", "0"), "--hours is a limit above zero, got 0"),
        (("--hours", "1", "--no-time"), "--hours limits the predicted time, and --no-time predicts none"),
        (("--gib", "-2"), "--gib is a limit above zero, got -2"),
        (("--picture", "budget.png"), "--picture budget.png: the picture is SVG"),
        (("--preset", "nothing"), "there is no preset 'nothing'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(
    arguments: tuple[str, ...], told: str, dualpriv: Command
) -> None:
    status, said, error = dualpriv("budget", *arguments)
    assert status == 2 and said == ""
    assert told in error and error.startswith("dualpriv: ") and error.count("\n") == 1


def test_limits_on_what_is_not_predicted_are_mistakes(dualpriv: Command, folder: Path) -> None:
    wanted = ("budget", "--units", "1000", "--epsilon", "2", "--weights", "500")
    status, _, error = dualpriv(*wanted, "--hours", "1")
    assert status == 2 and "--hours limits what is not known: time is not predicted: models/backbone" in error
    (folder / "models/pretrained/config.json").unlink()
    status, _, error = dualpriv(*wanted, "--no-time", "--gib", "1")
    assert status == 2 and "--gib limits what is not known: memory is not predicted" in error
    status, _, error = dualpriv("budget")
    assert status == 2 and "how many weights learn is not known" in error


def test_a_run_without_privacy_has_no_budget(dualpriv: Command, folder: Path) -> None:
    edit_params(folder, {"kind: gradient ": "kind: nonprivate "})
    status, _, error = dualpriv("budget")
    assert status == 2 and "estimator.kind nonprivate spends no epsilon" in error


def test_the_budget_of_slopes_is_told_by_slopes(dualpriv: Command, folder: Path) -> None:
    edit_params(
        folder, PEOPLE | {"kind: gradient ": "kind: zeroth_order ", "directions: 1 ": "directions: 4 "}
    )
    status, _, error = dualpriv("budget", *QUICK, "--weights", "500")
    assert status == 2 and "--weights 500: zeroth order adds noise to slopes, whatever number" in error
    assert error.count("\n") == 1
    status, said, _ = dualpriv("budget", *QUICK, "--picture", "budget.svg")
    assert status == 0 and "Noise on 4 slopes a step" in said and "weights that learn" not in said
    assert "Noise on 4 slopes a step; ringed" in (folder / "budget.svg").read_text()
    (folder / "models/pretrained/config.json").unlink()
    status, _, error = dualpriv("budget", *QUICK)
    assert status == 2 and "is here: run `dualpriv repro backbone`" in error


def test_a_line_through_two_timed_steps_predicts_the_run() -> None:
    steps = [{"units": 10, "seconds": 1.5}, {"units": 40, "seconds": 3.0}]
    timing = Timing.through({"about": "a machine", "steps": steps})
    assert timing.seconds(100, 7) == pytest.approx(7 * (1.0 + 0.05 * 100))
    flat = [{"units": 10, "seconds": 1.5}, {"units": 40, "seconds": 1.4}]
    assert Timing.through({"about": "noisy", "steps": flat}).seconds(1000, 1) == pytest.approx(1.4)
    alone = Timing.through({"about": "one unit", "steps": steps[:1]})
    assert alone.seconds(20, 1) == pytest.approx(3.0)


WATCH = """
import os, sys
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and "/data/" in os.path.abspath(arguments[0]):
        with os.fdopen(os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as file:
            file.write(os.path.abspath(arguments[0]) + "\\n")
sys.addaudithook(note)
"""
PRIVATE = (
    "data/demonstration/private.parquet",
    "data/records/train",
    "data/encoded/train",
    "data/records/heldout",
)


@pytest.mark.slow
def test_time_is_predicted_on_public_records_and_nothing_private_is_opened(prepared: Path) -> None:
    """Private places hold what no reader could take, and the processes tell which files they open."""
    for place in PRIVATE:
        (prepared / place).parent.mkdir(parents=True, exist_ok=True)
        (prepared / place).write_bytes(b"whoever reads this fails")
    watching = prepared / "watching"
    watching.mkdir()
    (watching / "sitecustomize.py").write_text(WATCH)
    opened, picture = prepared / "opened", prepared / "budget.svg"
    path = f"{watching}{os.pathsep}{os.environ['PYTHONPATH']}"
    command = [
        *("import sys; from pipeline.cli import main; sys.argv[0] = 'dualpriv'; main()", "budget"),
        *("--batch", "20,40", "--steps", "5", "--epsilon", "2", "--hours", "1", "--json"),
        *("--picture", str(picture)),
    ]
    done = run(prepared, sys.executable, "-c", *command, PYTHONPATH=path, OPENED=str(opened))
    found = json.loads(done.stdout)
    small, large = (option["seconds"] for option in found["options"])
    assert 0 < small <= large
    assert "from steps on 2 and 8 public units" in found["predicted"]["time"]
    files = set(opened.read_text().splitlines())
    assert str(prepared / "data/calibrate/pruning.json") in files, "the watch saw nothing"
    assert not [file for file in files if any(file.startswith(str(prepared / place)) for place in PRIVATE)]
    assert picture.read_text().startswith("<svg")
    assert not (prepared / "scratch/ledger.sqlite3").exists()
