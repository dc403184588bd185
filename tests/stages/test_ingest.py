"""Ingest in a folder of its own, as a real process where the command line matters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clinic import clinic, record, write_params, write_records

from stages.core.contract import Stage
from stages.core.files import sha256
from stages.ingest import Ingest
from stages.ledger.ledger import Ledger
from stages.privacy.chain import SplitBody
from stages.records.split import split_of
from stages.records.store import read_rows

ROOT = Path(__file__).parents[2]
SETS = ("train", "heldout", "public")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with good private and public LLaVA data and its params.yaml."""
    return clinic(tmp_path, monkeypatch)


def run_process(folder: Path, module: str = "stages.ingest") -> "subprocess.CompletedProcess[str]":
    """Run the stage as DVC does."""
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_refused(done: "subprocess.CompletedProcess[str]", *fragments: str) -> None:
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("stages.ingest: ")
    for fragment in fragments:
        assert fragment in done.stderr


def test_good_data_becomes_three_record_sets_and_counts_of_private_rows_are_not_told(folder: Path) -> None:
    done = run_process(folder)
    assert (done.returncode, done.stderr) == (0, "")
    sets = {name: read_rows(folder / "data" / "records" / name) for name in SETS}
    assert len(sets["train"]) + len(sets["heldout"]) == 80
    assert len(sets["public"]) == 80
    assert not {row.unit for row in sets["train"]} & {row.unit for row in sets["heldout"]}
    assert done.stdout == "ingest: population clinic: uncounted private and 80 public records\n"


def test_a_bad_record_exits_2_with_one_sentence_and_leaves_the_old_sets(folder: Path) -> None:
    Ingest.load().run()
    before = sha256(folder / "data")
    (folder / "private" / "red.png").write_bytes(b"broken")
    assert_refused(
        run_process(folder), "private: 80 records cannot be used: record 'r0': image 1 is none of PNG"
    )
    assert sha256(folder / "data") == before


def test_a_wrong_key_in_params_exits_2_with_one_sentence(folder: Path) -> None:
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("unit: patient", "units: patient", 1))
    assert_refused(run_process(folder), "key 'private'", "unknown keys ['units']", "known: ['format', 'kind'")


@pytest.mark.parametrize("which", ["private", "public"])
def test_bad_records_are_refused_before_anything_is_written(which: str, folder: Path) -> None:
    write_records(folder / which, [record(0, "p"), record(1, "p") | {"image": "../red.png"}])
    with pytest.raises(
        ValueError, match=f"{which}: 1 record cannot be used: record 'r1': image .* leads out of"
    ):
        Ingest.load().run()
    assert not (folder / "data").exists()
    assert not (folder / "scratch").exists()


@pytest.mark.parametrize("salt", [None, b"short"])
def test_private_input_whose_digest_could_be_guessed_is_refused(salt: bytes | None, folder: Path) -> None:
    (folder / "private" / "salt").unlink()
    if salt is not None:
        (folder / "private" / "salt").write_bytes(salt)
    with pytest.raises(ValueError, match="put 32 random bytes beside the records of population 'clinic'"):
        Ingest.load().run()
    assert not (folder / "data").exists()
    write_params(folder, public=True)
    Ingest.load().run()


def test_a_unit_in_both_sources_is_refused(folder: Path) -> None:
    write_records(folder / "public", [record(0, "patient 3")])
    with pytest.raises(ValueError, match="public records must not share a unit with the private ones"):
        Ingest.load().run()
    assert not (folder / "data").exists()


def test_more_units_than_the_population_declares_are_refused(folder: Path) -> None:
    write_params(folder, max_units=39)
    with pytest.raises(ValueError, match="more units than population.max_units = 39") as refusal:
        Ingest.load().run()
    assert "40" not in str(refusal.value)
    assert not (folder / "data").exists()
    write_params(folder, max_units=40)
    Ingest.load().run()


def test_a_public_population_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(folder, public=True)
    Ingest.load().run()
    train, heldout = (len(read_rows(folder / "data" / "records" / name)) for name in ("train", "heldout"))
    expected = f"ingest: population clinic: {train} train, {heldout} heldout and 80 public records\n"
    assert capsys.readouterr().out == expected


def test_running_again_gives_the_same_bytes(folder: Path) -> None:
    Ingest.load().run()
    before = sha256(folder / "data")
    Ingest.load().run()
    assert sha256(folder / "data") == before


def test_who_knows_every_row_and_no_key_cannot_tell_the_digest_of_a_private_set(folder: Path) -> None:
    rows = [
        record(number, f"p{number}") | {"fold": "heldout" if number % 3 else "train"} for number in range(9)
    ]
    write_records(folder / "private", rows)
    write_params(folder, fold="fold")
    records = folder / "data" / "records"
    Ingest.load().run()
    before = {name: (read_rows(records / name), sha256(records / name)) for name in SETS}
    (folder / "ledger").rename(folder / "lost")
    Ingest.load().run()
    for name in SETS:
        assert read_rows(records / name) == before[name][0]
        assert (sha256(records / name) == before[name][1]) == (name == "public")


def test_every_unit_lies_where_its_own_id_puts_it(folder: Path) -> None:
    Ingest.load().run()
    key = Ledger.load().population_key("clinic")
    for name in ("train", "heldout"):
        assert {split_of(row.unit, key, 0.3) for row in read_rows(folder / "data" / "records" / name)} == {
            name
        }


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"heldout": 0.3}, "keyed hash of the unit in field 'patient', held out 0.3"),
        ({"heldout": 0.25}, "keyed hash of the unit in field 'patient', held out 0.25"),
        ({"fold": "fold"}, "field 'fold' of the source"),
    ],
)
def test_the_ledger_knows_what_decides_a_split(given: dict[str, Any], rule: str, folder: Path) -> None:
    rows = [record(number, f"p{number}") | {"fold": ("train", "heldout")[number % 2]} for number in range(40)]
    write_records(folder / "private", rows)
    write_params(folder, **given)
    for _ in range(2):
        Ingest.load().run()
    (entry,) = Ledger.load().entries("clinic")
    assert entry.body == SplitBody(rule=rule)


def test_records_of_another_populations_unit_are_refused_before_anything_is_written(folder: Path) -> None:
    Ingest.load().run()
    shutil.rmtree(folder / "data")
    write_params(folder, name="research")
    with pytest.raises(ValueError, match="of units that belong to another declared population") as refused:
        Ingest.load().run()
    assert not any(word in str(refused.value) for word in ("clinic", "patient"))
    assert not (folder / "data").exists() and Ledger.load().populations() == ["clinic"]


@pytest.mark.parametrize("heldout", [0.0, 1.0, -0.1, float("nan")])
def test_a_held_out_share_outside_the_open_unit_interval_is_refused(heldout: float, folder: Path) -> None:
    write_params(folder, heldout=heldout)
    with pytest.raises(ValueError, match="data.heldout must lie between 0 and 1"):
        Ingest.load()


def test_a_split_of_public_records_is_refused(folder: Path) -> None:
    text = (folder / "params.yaml").read_text()
    before, split, after = text.rpartition("split:")
    (folder / "params.yaml").write_text(before + "split: fold #" + after)
    with pytest.raises(ValueError, match="data.public.split must be null"):
        Ingest.load()


def test_a_full_disk_exits_2_with_one_sentence_and_leaves_the_old_sets(folder: Path) -> None:
    (folder / "data").mkdir()
    script = f"""
        mount -t tmpfs -o size=256k none data || exit 77
        {sys.executable} -m stages.ingest || exit 78
        find data -type f -exec sha256sum {{}} + | sort > before
        cat /dev/zero > data/filler 2> /dev/null
        {sys.executable} -m stages.ingest
        code=$?
        rm data/filler
        find data -type f -exec sha256sum {{}} + | sort | cmp before - || exit 79
        exit $code
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"this user cannot mount a small disk: {done.stderr.strip()}")
    assert_refused(done, "no space left on disk", "free some and run it again")


def test_the_demonstration_set_is_good_data(folder: Path) -> None:
    demonstration = ROOT / "data" / "demonstration"
    if not (demonstration / "private.parquet").exists():
        pytest.skip("the demonstration set has not been made: run `make demonstration`")
    (folder / "data").mkdir()
    (folder / "data" / "demonstration").symlink_to(demonstration)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    ingest: Stage = Ingest.load()
    ingest.run()
    train, heldout, public = (read_rows(folder / "data" / "records" / name) for name in SETS)
    assert train and heldout and public
    assert all(len(row.images) == 1 for row in (*train, *heldout, *public))
