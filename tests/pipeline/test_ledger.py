"""``dualpriv ledger`` shows, exports and gives back what its ledger says, and refuses in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import ADD_OR_REMOVE, DIGITS, LIMIT, PEOPLE, RULE, release, reservation, settlement, sgd

from pipeline.ledger import abandon_command, export_command, file_name, show_command
from stages.ledger.ledger import Ledger
from stages.privacy.accounting import Target
from stages.privacy.chain import chain_from_json
from stages.privacy.clipping_rule import Clipping
from stages.privacy.events import event_from_json
from stages.privacy.history import history_of
from stages.privacy.planning import plan_private
from stages.privacy.population import Population
from stages.privacy.sampling import Sampling
from stages.training.intents import Intents
from stages.training.run_folder import open_run
from stages.training.settling import reservation as reservation_of
from tests.pipeline.conftest import REPOSITORY

NAME = "0123456789abcdef" * 2
"""What a run's folder is called."""
PARAMS = """
ledger: {url: null, limit: {epsilon: 12.0, delta: 1.0e-5}}
run_key: {archive_to: null}
population: {name: people, public: false, max_units: 1000, unit: person}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with parameters and a scratch folder of its own."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path


def reserve(number: int, population: Population = PEOPLE, **changes) -> None:
    Ledger.load().reserve(population, ADD_OR_REMOVE, reservation(number, **changes))


def shown(capsys) -> dict:
    show_command(as_json=True)
    return json.loads(capsys.readouterr().out)


def test_the_account_adds_up_in_json_and_in_the_table(capsys) -> None:
    ledger = Ledger.load()
    ledger.register(PEOPLE, ["a"], RULE)
    for number in (1, 2, 3):
        reserve(number)
    ledger.settle(PEOPLE.name, settlement(1))
    reserve(4, DIGITS)
    digits, people = shown(capsys)["populations"]
    account, states = people["account"], [release["state"] for release in people["releases"]]
    assert states == ["settled", "reserved", "reserved"] and people["split_rules"] == [RULE]
    assert account["spent"] + account["reserved"] + account["remaining"] == pytest.approx(account["budget"])
    assert account["reserved"] == pytest.approx(2 * account["spent"])
    assert (account["epsilon_limit"], account["delta"]) == (LIMIT.epsilon, LIMIT.delta)
    assert digits["public"] and digits["account"] is None and len(digits["releases"]) == 1
    show_command(as_json=False)
    printed = capsys.readouterr().out
    for said in (
        "Population digits is public: releases are recorded, and nothing limits them.",
        f"epsilon {account['epsilon']:.4g} of 12 at delta 1e-05; splits compose in parallel",
        f"{account['spent']:.4g}",
        f"{account['remaining']:.4g}",
        release(3),
        "40 times: Poisson sample at rate 0.125",
    ):
        assert said in printed


def test_an_export_is_the_whole_chain_and_audits_alone(capsys, folder: Path) -> None:
    reserve(1)
    reserve(2)
    export_command(None, None)
    assert "holds 3 entries of population people, up to " in capsys.readouterr().out
    value = json.loads((folder / "data/ledger/people.json").read_text())
    entries = chain_from_json(value, "people.json")
    assert entries == Ledger.load().entries("people")
    assert set(history_of("people", entries).releases) == {release(1), release(2)}
    export_command("people", folder / "elsewhere.json")
    assert json.loads((folder / "elsewhere.json").read_text()) == value
    with pytest.raises(ValueError, match="nothing is recorded of population 'others'"):
        export_command("others", None)


def test_names_of_files_are_safe_and_differ() -> None:
    names = [
        "people",
        "People",
        "a/b",
        "a-b",
        "../a",
        "..",
        "",
        "a b",
        "-",
        "\N{GREEK SMALL LETTER ALPHA}",
        "x\n",
    ]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    for file in files:
        assert Path(file).name == file and not file.startswith((".", "-")) and file.isascii()


def begun(number: int, steps: int, *, population: Population = PEOPLE) -> Path:
    """Reserve a run of six steps that began some and then died, and return its folder."""
    plan = plan_private(
        Target(relation=ADD_OR_REMOVE, epsilon=4.0, delta=1e-5),
        population,
        Sampling(steps=6, rate=0.5, expected_batch=10.0),
        clipping=Clipping(clip=1.0, rule="flat", groups="whole"),
        rows_per_unit=1,
    )
    with open_run("finetune", NAME, None) as run:
        intents = Intents(run.intents, {"release": release(number), "plan": plan.to_json()})
        for step in range(steps):
            intents.record(step, {"rate": 0.5})
    Ledger.load().reserve(PEOPLE, ADD_OR_REMOVE, reservation_of(plan, "finetune", release(number)))
    return run.path


@pytest.mark.parametrize("steps", [0, 2, 6])
def test_a_dead_run_is_charged_for_what_it_began_and_never_goes_on(steps: int, capsys) -> None:
    path = begun(1, steps)
    (before,) = shown(capsys)["populations"]
    abandon_command(release(1), "killed")
    assert "is charged what its intents say it began (entry 3 of" in capsys.readouterr().out
    (after,) = shown(capsys)["populations"]
    assert after["account"]["spent"] == pytest.approx(before["account"]["reserved"] * steps / 6)
    assert after["account"]["reserved"] == 0 and after["releases"][0]["state"] == "abandoned"
    assert not path.exists() and path.with_name(f"{NAME}-abandoned").is_dir()


def test_a_release_whose_intents_are_elsewhere_is_charged_its_worst_case(capsys) -> None:
    reserve(1)
    (before,) = shown(capsys)["populations"]
    abandon_command(release(1), "its machine is gone")
    assert "is charged all that it had reserved" in capsys.readouterr().out
    (after,) = shown(capsys)["populations"]
    assert after["account"]["spent"] == before["account"]["reserved"]
    assert Ledger.load().entries("people")[-1].body.reason == "its machine is gone"


def test_a_run_that_a_living_process_holds_is_refused(folder: Path) -> None:
    path = begun(1, 2)
    before = Ledger.load().entries("people")
    with (
        open_run("finetune", NAME, None),
        pytest.raises(ValueError, match="another process is running stage finetune"),
    ):
        abandon_command(release(1), "impatient")
    assert Ledger.load().entries("people") == before and path.is_dir()


def test_damaged_intents_and_those_of_others_charge_nothing(folder: Path) -> None:
    path = begun(1, 2)
    before = Ledger.load().entries("people")
    whole = (path / "intents.jsonl").read_bytes()
    (path / "intents.jsonl").write_bytes(whole.replace(b'"step": 0', b'"step": "zero"'))
    with pytest.raises(ValueError, match="is damaged at line 2"):
        abandon_command(release(1), "")
    (path / "intents.jsonl").write_bytes(whole.replace(b'"people"', b'"others"'))
    with pytest.raises(ValueError, match="is of population 'others'"):
        abandon_command(release(1), "")
    assert Ledger.load().entries("people") == before and path.is_dir()


def test_only_what_is_reserved_can_be_abandoned(folder: Path) -> None:
    path = begun(1, 6)
    reserved = event_from_json(Ledger.load().entries("people")[-1].body.event)
    Ledger.load().settle("people", settlement(1, reserved))
    with pytest.raises(ValueError, match="is settled already: only what is reserved can be abandoned"):
        abandon_command(release(1), "")
    assert path.is_dir(), "a run that DVC has not recorded may still be run again"
    reserve(2, event=sgd(30.0, 1))
    abandon_command(release(2), "")
    with pytest.raises(ValueError, match="is abandoned already"):
        abandon_command(release(2), "")
    with pytest.raises(ValueError, match="knows no release 'nothing'"):
        abandon_command("nothing", "")


def dualpriv(*arguments: str) -> "subprocess.CompletedProcess[str]":
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from pipeline.cli import main; main()"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)


def test_without_a_ledger_the_command_says_so_and_makes_none(ledger_file: Path) -> None:
    done = dualpriv("ledger")
    said = f"dualpriv: there is no ledger {ledger_file}: the first run of stage ingest begins it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert not ledger_file.parent.exists()


@pytest.mark.slow
def test_the_command_alone_shows_and_its_options_reach_it(ledger_file: Path) -> None:
    reserve(1)
    alone, as_json = dualpriv("ledger"), dualpriv("ledger", "--json")
    assert alone.returncode == 0 and release(1) in alone.stdout
    assert json.loads(as_json.stdout)["populations"][0]["population"] == "people"
    gone = dualpriv("ledger", "abandon", release(1), "--reason", "tired of it")
    assert gone.returncode == 0, gone.stderr
    assert Ledger.load().entries("people")[-1].body.reason == "tired of it"
