"""A run's folder has one writer, one key, and ends when its output is recorded."""

import hashlib
import json

import pytest

from stages.training.checkpoint import load_checkpoint
from stages.training.intents import Intents, read_attempts
from stages.training.run_folder import RunFolder, abandoned_runs, discard_run, open_run

HEADER = {"release": "r", "plan": {"population": {"name": "people"}}}


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))


def test_a_second_writer_is_refused():
    with open_run("finetune", "a", None), pytest.raises(ValueError, match="another process is running"):
        with open_run("finetune", "a", None):
            pass
    with open_run("finetune", "a", None):
        pass


def test_the_key_stays_until_the_recorded_output_makes_the_next_run_a_new_release(tmp_path):
    trace = tmp_path / "trace.json"
    trace.write_text("{}")
    digest = hashlib.md5(b"{}").hexdigest()
    with open_run("finetune", "a", None) as folder:
        key = folder.run_key()
        assert folder.run_key() == key
        assert (folder.path / "run.key").stat().st_mode & 0o777 == 0o600
        folder.finish(trace)
    with open_run("finetune", "a", None) as folder:
        assert folder.run_key() == key, "not yet recorded: the same release goes on"
    with open_run("finetune", "a", digest) as folder:
        assert folder.run_key() != key, "recorded: a forced rerun is a fresh release"


def test_a_discarded_run_leaves_nothing():
    with open_run("finetune", "a", None) as folder:
        folder.run_key()
    discard_run("finetune", "a")
    assert not folder.path.exists()
    discard_run("finetune", "never was")


def test_a_lost_key_beside_a_checkpoint_is_an_error_and_never_a_new_key():
    with open_run("finetune", "a", None) as folder:
        folder.checkpoint.write_bytes(b"x")
        with pytest.raises(ValueError, match="run.key is gone"):
            folder.run_key()


def test_intents_count_attempts_and_a_line_cut_off_by_a_crash_never_happened(tmp_path):
    path = tmp_path / "intents.jsonl"
    intents = Intents(path, HEADER)
    intents.record(0)
    intents.record(1)
    with open(path, "a") as file:
        file.write('{"st')
    again = Intents(path, HEADER)
    again.record(1)
    assert again.attempts() == {0: 1, 1: 2} == read_attempts(path)
    with pytest.raises(ValueError, match="belongs to another run"):
        Intents(path, {**HEADER, "release": "other"})


def test_a_header_cut_off_by_a_crash_is_written_again(tmp_path):
    path = tmp_path / "intents.jsonl"
    path.write_text('{"release"')
    Intents(path, HEADER).record(0)
    assert json.loads(path.read_text().splitlines()[0]) == HEADER


def test_unfinished_runs_of_other_inputs_on_these_people_are_found():
    for name, people in (("a", "people"), ("b", "others"), ("c", "people")):
        with open_run("finetune", name, None) as folder:
            Intents(folder.intents, {"release": name, "plan": {"population": {"name": people}}}).record(0)
    assert [run.fingerprint for run in abandoned_runs("finetune", "c", "people")] == ["a"]
    with open_run("finetune", "a", None):
        assert abandoned_runs("finetune", "c", "people") == [], "a living run is not abandoned"


def test_a_broken_checkpoint_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    assert load_checkpoint(folder.checkpoint, "a", "cpu") is None
    folder.checkpoint.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_checkpoint(folder.checkpoint, "a", "cpu")
