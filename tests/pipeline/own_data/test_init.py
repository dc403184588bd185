"""``dualpriv init``: three sets of records as people have them become a params.yaml that stages read."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from commands import Command, commands

from models import picture
from pipeline.budget.books import Books
from pipeline.own_data.admitted import plan_of
from pipeline.own_data.declared import suggested_delta
from pipeline.own_data.fitting import candidates
from pipeline.own_data.place import place_of
from stages.core.params import read_params, read_section
from stages.ingest import Ingest
from stages.privacy.population import Population
from stages.privacy.renyi_filter import Limit
from stages.records.data import Data
from stages.records.source import read_source
from tests.pipeline.conftest import REPOSITORY, commit_all

UNITS = 37
SAID = (
    "--population",
    "ward 3",
    "--unit-in-words",
    "patient",
    "--max-units",
    "5000",
    "--units-about",
    "4000",
)
PROMISE = ("--epsilon", "3", "--delta", "1e-5", "--limit", "9")


@pytest.fixture
def dualpriv(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_llava: Path
) -> Command:
    """Return what runs a command in a checkout with a model beside it, on no terminal."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(REPOSITORY / "params.yaml", checkout)
    shutil.copy(REPOSITORY / ".gitignore", checkout)
    (checkout / "data/demonstration").mkdir(parents=True)
    shutil.copy(REPOSITORY / "data/demonstration/public.parquet", checkout / "data/demonstration")
    subprocess.run(["git", "init", "--quiet", "."], cwd=checkout, check=True)
    commit_all(checkout)
    (tmp_path / "model").symlink_to(tiny_llava)
    monkeypatch.chdir(checkout)
    return commands(capsys, monkeypatch)


def llava(folder: Path) -> Path:
    """Write a folder of pictures with LLaVA's JSON; return what a user names."""
    rows = []
    for number in range(2 * UNITS):
        (folder / f"{number}.png").write_bytes(picture(number))
        said = [{"from": "human", "value": "<image>\nwhat is it ?"}, {"from": "gpt", "value": "seven"}]
        rows.append({"id": number, "image": f"{number}.png", "patient": number // 2, "conversations": said})
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def parquet(folder: Path) -> Path:
    """Write messages as TRL keeps them."""
    rows = [
        {
            "patient": f"p{number // 2}",
            "messages": [
                {"role": "user", "content": "what is it ?"},
                {"role": "assistant", "content": "seven"},
            ],
            "images": [{"bytes": picture(number), "path": None}],
        }
        for number in range(2 * UNITS)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    return folder / "train.parquet"


def chat(folder: Path) -> Path:
    """Write OpenAI's chat lines."""
    lines = []
    for number in range(2 * UNITS):
        url = "data:image/png;base64," + base64.b64encode(picture(number)).decode()
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it ?"}]
        said = [{"role": "user", "content": parts}, {"role": "assistant", "content": "seven"}]
        lines.append(json.dumps({"messages": said, "patient": f"p{number // 2}"}))
    (folder / "chat.jsonl").write_text("\n".join(lines))
    return folder / "chat.jsonl"


def init(dualpriv: Command, data: Path, *more: str) -> tuple[int, str, str]:
    return dualpriv("init", "--data", str(data), "--model", "../model", "--unit", "patient", *more)


@pytest.mark.parametrize("written", [llava, parquet, chat])
def test_three_kinds_of_records_become_parameters_that_stages_read(
    dualpriv: Command, tmp_path: Path, written: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    before = Path("params.yaml").read_text()
    code, said, error = init(dualpriv, written(folder), *SAID, *PROMISE)
    assert code == 0, error
    assert f"{2 * UNITS} can be used, 0 cannot" in said and f"{UNITS}, by 'patient'" in said
    assert "+  name: ward 3" in said and "next:" in said and "dualpriv budget" in said
    params = read_params()
    data = read_section(params, "data", Data)
    assert len(read_source(data.private)) == 2 * UNITS, "the stage reads what init saw"
    assert data.private.path == folder and (folder / "salt").stat().st_size == 32
    population = {"name": "ward 3", "public": False, "max_units": 5000, "unit": "patient"}
    assert params["population"] == population and params["evaluate"]["release"] == "private"
    assert (params["privacy"]["epsilon"], params["ledger"]["limit"]["epsilon"]) == (3.0, 9.0)
    assert params["sampling"]["rate"] == pytest.approx(params["sampling"]["expected_batch"] / 3200, rel=1e-2)
    assert [sum(budget) for budget in params["calibrate"]["candidates"]] == [7, 14, 21], "of 64 patches"
    after = Path("params.yaml").read_text()
    comments = [[line.partition("#")[2] for line in text.splitlines()] for text in (before, after)]
    assert [each for each in comments[0] if each] == [each for each in comments[1] if each]
    new = "\n".join(set(after.splitlines()) - set(before.splitlines()))
    assert not re.search(rf"\b({UNITS}|{2 * UNITS})\b", new), "no count is kept"
    assert "candidates: [[6, 1], [12, 2], [18, 3]]" in new
    monkeypatch.setenv("DUALPRIV_SCRATCH", str(tmp_path / "scratch"))
    Ingest.load().run()
    code, said, _ = init(dualpriv, folder, *SAID, *PROMISE)
    assert code == 0 and "params.yaml says what init says already" in said


def test_a_dry_run_writes_nothing(dualpriv: Command, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    before = Path("params.yaml").read_text()
    code, said, _ = init(dualpriv, llava(tmp_path / "own"), *SAID, *PROMISE, "--dry-run")
    assert code == 0 and "+  name: ward 3" in said
    assert Path("params.yaml").read_text() == before and not (tmp_path / "own/salt").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (SAID, "--epsilon is missing, and only a person can decide it"),
        (PROMISE, "--population is missing, and only a person can decide it"),
        ((*SAID, *PROMISE, "--max-units", "30"), "--units-about 4000 must lie between 1 and --max-units 30"),
        (
            (*SAID, *PROMISE, "--max-units", "30", "--units-about", "30"),
            f"there are {UNITS} units, more than",
        ),
        ((*SAID, *PROMISE, "--delta", "0.01"), "--delta must lie above 0 and below 1 / max_units"),
        ((*SAID, *PROMISE, "--epsilon", "50"), "--epsilon must lie above 0 and be at most 20"),
        ((*SAID, *PROMISE, "--limit", "3"), "--limit 3 admits not even this training"),
        ((*SAID, *PROMISE, "--limit", "inf"), "--limit inf admits not even this training"),
        ((*SAID, *PROMISE, "--unit", "pationt"), f"{2 * UNITS} records cannot be used, named above"),
        ((*SAID, *PROMISE, "--model", "nowhere/at/all"), "is neither a directory nor a hub id"),
        ((*SAID, *PROMISE, "--model", "owner/name"), "is a hub id: say --revision"),
        ((*SAID, *PROMISE, "--model", "."), "holds no config.json"),
        ((*SAID, *PROMISE, "--data", "../none"), "--data ../none does not exist"),
        ((*SAID, *PROMISE, "--rows", "none.json"), "none.json is not a file"),
        ((*SAID, *PROMISE, "--data", "params.yaml"), "is the checkout's folder, above it, or directly in it"),
        ((*SAID, *PROMISE, "--data", ".."), "is the checkout's folder, above it, or directly in it"),
        ((*SAID, *PROMISE, "--public", "../own"), "--public names records of units that are in --data too"),
        ((*SAID, *PROMISE, "--public", "../none"), "--public ../none does not exist"),
        ((*SAID, *PROMISE, "--data", "data"), "holds no file that ends in .parquet"),
        ((*SAID, *PROMISE, "--data", "data/demonstration"), "`git add` would take the records"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    dualpriv: Command, tmp_path: Path, more: tuple[str, ...], told: str
) -> None:
    (tmp_path / "own").mkdir()
    before = Path("params.yaml").read_text()
    code, _, error = init(dualpriv, llava(tmp_path / "own"), *more)
    assert code == 2 and told in error and error.startswith("dualpriv: ") and error.count("\n") == 1
    assert Path("params.yaml").read_text() == before and not (tmp_path / "own/salt").exists()


def test_records_that_are_bad_by_themselves_may_be_left_out(dualpriv: Command, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    llava(folder)
    (folder / "3.png").write_bytes(b"no picture")
    code, said, error = init(dualpriv, folder, *SAID, *PROMISE)
    assert code == 2 and "record '3': image 1 is none of" in said
    assert (
        "1 records cannot be used, named above: mend them or leave them out with --on-bad-record skip"
        in error
    )
    code, said, _ = init(dualpriv, folder, *SAID, *PROMISE, "--on-bad-record", "skip")
    assert code == 0 and "on_bad_record: skip" in said


def test_answers_on_a_terminal_are_taken_and_suggested(
    dualpriv: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, Any] = {"Name": "ward 3", "A public bound": "5000"}
    asked = []

    def prompt(text: str, *, default: Any, type: Callable[[str], Any]) -> Any:
        asked.append((text, default))
        return type(next((said for start, said in answers.items() if text.startswith(start)), default))

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", prompt)
    (tmp_path / "own").mkdir()
    code, _, error = init(dualpriv, llava(tmp_path / "own"))
    assert code == 0, error
    *first, limit = [default for _, default in asked]
    assert first == [None, "patient", None, 5000, 8.0, 1e-05]
    params = read_params()
    books = Books(
        population=read_section(params, "population", Population),
        relation="add_or_remove_one",
        limit=Limit(epsilon=limit / 2 - 0.1, delta=1e-5),
        place=None,
        entries=(),
        lost=None,
    )
    assert books.allow(plan_of(params)).refused is not None, "a tenth less than what is said is too little"
    assert replace(books, limit=Limit(epsilon=limit / 2, delta=1e-5)).allow(plan_of(params)).passes == 1
    assert read_params()["privacy"] == {"relation": "add_or_remove_one", "epsilon": 8.0, "delta": 1e-05}


@pytest.mark.parametrize("units", [9, 10, 11, 999, 6000, 10_000, 10_001])
def test_the_suggested_delta_is_at_most_a_tenth_of_the_inverse_of_the_bound(units: int) -> None:
    assert suggested_delta(units) <= 0.1 / units * (1 + 1e-12) and suggested_delta(units) > 0.001 / units


@pytest.mark.parametrize("tokens", [1, 4, 9, 64, 256, 576, 2880])
def test_budgets_rise_and_keep_no_more_than_there_is(tokens: int) -> None:
    found = candidates(tokens)
    sizes = [sum(budget) for budget in found]
    assert sizes == sorted(set(sizes)) and sizes[-1] <= max(2, tokens)
    assert all(dominant >= 1 and contextual >= 1 for dominant, contextual in found)


def test_shards_of_parquet_are_one_set_and_two_files_of_rows_are_a_question(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / name).write_bytes(b"")
    assert place_of(tmp_path, None).rows is None
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(ValueError, match="say with --rows which file holds the rows"):
        place_of(tmp_path, None)
    assert place_of(tmp_path, "rows.json").format == "llava"
    (tmp_path / "lines.jsonl").write_text('{"id": 1, "conversations": []}\n')
    with pytest.raises(ValueError, match="and no 'messages': write OpenAI's chat layout"):
        place_of(tmp_path, "lines.jsonl")
