"""A run's folder has one writer, one key, and ends when its output is accounted; its charge never ends."""

import hashlib
import json

import pytest

from stages.core.fingerprint import ResolvedInputs
from stages.ledger.ledger import Ledger
from stages.privacy.accounting import Target
from stages.privacy.events import event_to_json
from stages.privacy.plan import Plan
from stages.privacy.planning import plan_nonprivate
from stages.privacy.population import Population
from stages.privacy.reserving import Settlement
from stages.privacy.sampling import Sampling
from stages.privacy.split_rule import keyed_hash_rule
from stages.training.abandoned import abandon_runs, other_runs
from stages.training.checkpoint import load_checkpoint
from stages.training.intents import Begun, Intents, read_begun, read_header, way_out
from stages.training.run_folder import RunFolder, is_begun, open_run, retire_run
from stages.training.settling import reservation
from stages.training.unfinished import require_no_unfinished

RELEASE = "0" * 32
HEADER = {"release": RELEASE, "plan": {"population": {"name": "people"}}}
USED = {"rate": 0.5}
DONE = hashlib.md5(b"{}").hexdigest()


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    limit = "ledger: {url: null, limit: {epsilon: 3.0, delta: 1.0e-5}}"
    (tmp_path / "params.yaml").write_text(f"run_key: {{archive_to: null}}\n{limit}\n")


def plan_of(name: str = "people", unit: str = "person", relation: str = "add_or_remove_one") -> Plan:
    return plan_nonprivate(
        Target(relation=relation, epsilon=1.0, delta=1e-5),
        Population(name=name, public=True, max_units=100, unit=unit),
        Sampling(steps=3, rate=0.5, expected_batch=10.0),
        rows_per_unit=1,
    )


def begin(folder: RunFolder, plan: Plan, steps: int = 1, release: str = RELEASE) -> Intents:
    intents = Intents(folder.intents, {"release": release, "plan": plan.to_json(), "commit": "unknown"})
    for step in range(steps):
        intents.record(step, USED)
    return intents


def finish(folder: RunFolder, tmp_path) -> None:
    (tmp_path / "trace.json").write_text("{}")
    folder.finish(tmp_path / "trace.json")


def test_a_second_writer_is_refused():
    with open_run("finetune", "a", None), pytest.raises(ValueError, match="another process is running"):
        with open_run("finetune", "a", None):
            pass
    with open_run("finetune", "a", None):
        pass


def test_the_key_stays_until_the_recorded_output_makes_the_next_run_a_new_release(tmp_path):
    with open_run("finetune", "a", None) as folder:
        key = folder.run_key()
        assert folder.run_key() == key
        assert (folder.path / "run.key").stat().st_mode & 0o777 == 0o600
        finish(folder, tmp_path)
    with open_run("finetune", "a", None) as folder:
        assert folder.run_key() == key, "not yet recorded: the same release goes on"
    with open_run("finetune", "a", DONE) as folder:
        assert folder.run_key() != key, "recorded: a forced rerun is a fresh release"


def test_a_forced_rerun_before_accounting_leaves_the_first_runs_charge_and_not_its_key(tmp_path):
    with open_run("finetune", "a", None) as folder:
        folder.run_key()
        folder.checkpoint.write_bytes(b"x")
        begin(folder, plan_of(), steps=3)
        finish(folder, tmp_path)
    with open_run("finetune", "a", DONE) as folder:
        found = other_runs("finetune", "a", "people")
        assert [(run.name, run.steps) for run in found] == [("a-1", 3)]
        aside = folder.path.with_name("a-1")
        assert sorted(file.name for file in aside.iterdir()) == ["done.json", "intents.jsonl"]


def test_a_retired_run_keeps_its_intents_alone_and_is_not_found_again():
    with open_run("finetune", "a", None) as folder:
        folder.run_key()
        folder.checkpoint.write_bytes(b"x")
        begin(folder, plan_of(), steps=2)
    assert retire_run("finetune", RELEASE)
    assert not folder.path.exists()
    kept = folder.path.parent / "retired" / RELEASE
    assert [file.name for file in kept.iterdir()] == ["intents.jsonl"]
    assert other_runs("finetune", "b", "people") == []
    assert not retire_run("finetune", RELEASE), "again does nothing"


def test_what_a_killed_writer_left_is_gone_when_the_run_is_opened_again_or_retired():
    with open_run("finetune", "a", None) as folder:
        begin(folder, plan_of(), steps=1)
    for again in range(2):
        (folder.path / ".checkpoint.safetensors.x1.partial").write_bytes(b"half")
        (folder.path / "kept.partial").write_bytes(b"not a writer's")
        if not again:
            with open_run("finetune", "a", None):
                assert {file.name for file in folder.path.iterdir()} == {"intents.jsonl", "kept.partial"}
    assert retire_run("finetune", RELEASE)
    kept = folder.path.parent / "retired" / RELEASE
    assert {file.name for file in kept.iterdir()} == {"intents.jsonl", "kept.partial"}


def test_a_run_that_lives_or_is_another_release_is_not_retired():
    with open_run("finetune", "a", None) as folder:
        begin(folder, plan_of(), steps=2)
        assert not retire_run("finetune", RELEASE), "a living process has it"
    assert not retire_run("finetune", "1" * 32)
    assert folder.intents.exists()


@pytest.mark.parametrize("release", ["../../home", "a/b", "", ".", "A" * 32])
def test_a_release_from_forged_evidence_reaches_no_folder(release):
    with pytest.raises(ValueError, match="no run is called"):
        retire_run("finetune", release)


def test_going_on_with_a_begun_run_is_no_new_release(tmp_path):
    assert not is_begun("finetune", "a", None)
    with open_run("finetune", "a", None) as folder:
        begin(folder, plan_of(), steps=0)
        assert not is_begun("finetune", "a", None), "no step begun, nothing spent"
        begin(folder, plan_of(), steps=1)
        assert is_begun("finetune", "a", DONE)
        finish(folder, tmp_path)
    assert not is_begun("finetune", "a", DONE), "recorded: the next is a new release"


def test_a_lost_key_beside_a_checkpoint_is_an_error_and_never_a_new_key():
    with open_run("finetune", "a", None) as folder:
        folder.checkpoint.write_bytes(b"x")
        with pytest.raises(ValueError, match="run.key is gone but .* rename .* to a-abandoned"):
            folder.run_key()


def test_the_way_out_of_a_broken_run_keeps_its_charge():
    with open_run("finetune", "a", None) as folder:
        begin(folder, plan_of(), steps=2)
    folder.path.rename(folder.path.with_name("a-abandoned"))
    assert [run.steps for run in other_runs("finetune", "a", "people")] == [2]
    assert way_out(folder.path).endswith("to a-abandoned-2"), "a second one does not end up inside the first"


def test_a_run_that_its_owner_gave_up_does_not_stand_in_the_way_and_a_stopped_one_does():
    before, now = (ResolvedInputs({"params": {"optim": {"beta1": beta}}}) for beta in (0.9, 0.8))
    with open_run("finetune", before.fingerprint(), None) as folder:
        folder.note_inputs(before.values)
        begin(folder, plan_of(), steps=2)
    with pytest.raises(ValueError, match="after it began 2 steps cannot .* optim.beta1 was 0.9 and is 0.8"):
        require_no_unfinished("finetune", other_runs("finetune", now.fingerprint(), "people"), now)
    folder.path.rename(folder.path.with_name(f"{folder.path.name}-abandoned"))
    require_no_unfinished("finetune", other_runs("finetune", now.fingerprint(), "people"), now)
    assert [run.steps for run in other_runs("finetune", now.fingerprint(), "people")] == [2]


def test_a_key_that_cannot_be_seen_is_never_made_by_a_follower(tmp_path):
    with pytest.raises(ValueError, match="processes of one run need one scratch folder"):
        RunFolder(tmp_path / "run").known_key()
    assert not (tmp_path / "run").exists()


def test_intents_count_attempts_and_a_line_cut_off_by_a_crash_never_happened(tmp_path):
    path = tmp_path / "intents.jsonl"
    intents = Intents(path, HEADER)
    intents.record(0, USED)
    intents.record(1, USED)
    with open(path, "a") as file:
        file.write('{"st')
    again = Intents(path, HEADER)
    again.record(1, USED)
    assert again.begun() == [Begun(0, 1, USED), Begun(1, 2, USED)] == read_begun(path)
    replays = [json.loads(line)["replay"] for line in path.read_text().splitlines()[1:]]
    assert replays == [False, False, True]
    with pytest.raises(ValueError, match="belongs to another run"):
        Intents(path, {**HEADER, "release": "other"})


def test_a_step_under_two_mechanisms_is_an_error(tmp_path):
    intents = Intents(tmp_path / "intents.jsonl", HEADER)
    intents.record(0, USED)
    intents.record(0, {"rate": 0.9})
    with pytest.raises(ValueError, match="step 0 was begun under two mechanisms"):
        intents.begun()


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"step": "1", "mechanism": {}}', '{"step": 1}', "\xff"])
def test_damaged_intents_are_an_unknown_charge_and_never_none(line):
    with open_run("finetune", "a", None) as folder:
        begin(folder, plan_of(), steps=2)
        content = folder.intents.read_bytes().split(b"\n")
        content[1] = line.encode("latin-1")
        folder.intents.write_bytes(b"\n".join(content))
    with pytest.raises(ValueError, match="damaged at line 2, so what that run spent is unknown"):
        other_runs("finetune", "b", "people")


def test_a_header_cut_off_by_a_crash_is_written_again(tmp_path):
    path = tmp_path / "intents.jsonl"
    path.write_text('{"release"')
    assert read_header(path) is None
    Intents(path, HEADER).record(0, USED)
    assert json.loads(path.read_text().splitlines()[0]) == HEADER


def test_other_runs_on_these_people_are_found_finished_or_not(tmp_path):
    for name, people in (("a", "people"), ("b", "others"), ("c", "people"), ("d", "people")):
        with open_run("finetune", name, None) as folder:
            begin(folder, plan_of(people))
            if name == "d":
                finish(folder, tmp_path)
    assert [run.name for run in other_runs("finetune", "c", "people")] == ["a", "d"]
    with open_run("finetune", "a", None):
        found = other_runs("finetune", "c", "people")
        assert [run.name for run in found] == ["d"], "a living run is not abandoned"


def put_away(ledger, people):
    abandon_runs(ledger, "finetune", other_runs("finetune", "now", "people"), people, "add_or_remove_one")


def test_runs_that_will_not_go_on_are_charged_for_what_they_began_and_put_away(tmp_path):
    ledger, people = Ledger.load(), plan_of().population
    ledger.register(people, ["u"], keyed_hash_rule("patient", 0.2))
    for name, steps, release in (("a", 2, "a" * 32), ("b", 0, "b" * 32), ("c", 1, "c" * 32)):
        with open_run("finetune", name, None) as folder:
            folder.run_key()
            begin(folder, plan_of(), steps, release)
    ledger.reserve(people, "add_or_remove_one", reservation(plan_of(), "finetune", "a" * 32))
    ledger.reserve(people, "add_or_remove_one", reservation(plan_of(), "finetune", "b" * 32))
    put_away(ledger, people)
    charged = {
        entry.body.release: entry.body.event for entry in ledger.entries("people") if entry.kind == "abandon"
    }
    nothing, something = event_to_json(plan_of().event(0)), event_to_json(plan_of().event(2))
    assert charged == {
        "a" * 32: something,
        "b" * 32: nothing,
        "c" * 32: something,  # the ledger had never heard of it
    }
    assert other_runs("finetune", "now", "people") == []
    assert not list((tmp_path / "scratch").rglob("run.key"))
    before = ledger.entries("people")
    for _ in range(60):
        put_away(ledger, people)
    assert ledger.entries("people") == before
    assert len(list((tmp_path / "scratch/finetune").iterdir())) < 10, "asking leaves no trail of locks"


def test_a_run_that_the_ledger_has_settled_is_put_away_and_charged_no_more(tmp_path):
    ledger, people = Ledger.load(), plan_of().population
    ledger.register(people, ["u"], keyed_hash_rule("patient", 0.2))
    with open_run("finetune", "a", None) as folder:
        begin(folder, plan_of(), steps=3)
        finish(folder, tmp_path)
    ledger.reserve(people, "add_or_remove_one", reservation(plan_of(), "finetune", RELEASE))
    done = {"release": RELEASE, "released": {}, "code": "", "commit": "", "versions": {}}
    ledger.settle("people", Settlement(event=plan_of().event(3), **done))
    before = ledger.entries("people")
    put_away(ledger, people)
    assert ledger.entries("people") == before and other_runs("finetune", "now", "people") == []


def test_a_broken_checkpoint_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    assert load_checkpoint(folder.checkpoint, "a", "cpu") is None
    folder.checkpoint.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_checkpoint(folder.checkpoint, "a", "cpu")
