"""``dualpriv predict`` answers as the library does, and refuses a bad picture in one sentence."""

import base64
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models import picture
from pipeline.asking import SUFFIXES, Asked, about, lines_of, read_picture, require_no_mark
from pipeline.predict import Request, predict_command
from stages.core.files import write_json
from stages.records.row import IMAGE, Message
from tests.pipeline.conftest import REPOSITORY
from tests.pipeline.recorded import record_run
from tests.stages.reporting.finished_run import write_run


def asks(**changed: Any) -> Request:
    simple: dict[str, Any] = {"image": Path("picture.png"), "question": "odd or even ?"}
    return Request(**({"jsonl": None, "out": None, "batch": None} | simple | changed))


COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()", "predict"]


@pytest.fixture(scope="module")
def finished(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predict") / "checkout"
    write_run(root, tiny_llava)
    record_run(root)
    (root / "picture.png").write_bytes(picture(3))
    return root


@pytest.fixture
def checkout(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def test_the_answer_is_the_librarys(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stages.evaluation.answer import answer
    from stages.trainable.adapters import load_adapter
    from stages.vlm.family import load
    from stages.vlm.selection import Rule

    predict_command(asks())
    loaded = load(Path("models/backbone"))
    tuned = replace(loaded, model=load_adapter(loaded.model, Path("models/adapter"), loaded.family))
    rule = Rule(select="dominant_contextual", merge="cluster", layer=2, dominant=6, contextual=3)
    assert capsys.readouterr().out == answer(tuned, picture(3), "odd or even ?", rule) + "\n"


def predict(*options: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([*COMMAND, *options], env=environment, capture_output=True, text=True)


def bomb(path: Path) -> None:
    Image.new("1", (9000, 9000)).save(path, "PNG")


def broken(path: Path) -> None:
    path.write_bytes(picture(1)[:200])


def text(path: Path) -> None:
    path.write_text("not a picture\n")


@pytest.mark.parametrize(
    ("make", "said"),
    [(bomb, "more than 64000000 pixels"), (broken, "truncated or corrupt"), (text, "is none of PNG"),
     (Path.mkdir, "is not a file"), (lambda path: None, "is not a file")],
    ids=["bomb", "broken", "text", "folder", "missing"],
)  # fmt: skip
def test_a_bad_picture_is_one_sentence(tmp_path: Path, make: object, said: str) -> None:
    assert callable(make)
    make(tmp_path / "picture.png")
    with pytest.raises(ValueError, match=said) as refused:
        read_picture(tmp_path / "picture.png")
    assert "picture.png" in str(refused.value) and "\n" not in str(refused.value)


def test_the_command_refuses_a_bad_picture_before_it_loads_a_model(checkout: Path) -> None:
    (checkout / "bad.png").write_bytes(picture(1)[:200])
    answer = predict("--image", "bad.png", "--question", "which digit is this ?")
    assert answer.returncode == 2
    assert answer.stderr.startswith("dualpriv: image 'bad.png' is truncated or corrupt")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": None}, "ask with both --image and --question, or with --jsonl"),
        ({"question": None}, "ask with both --image and --question, or with --jsonl"),
        ({"jsonl": Path("asked.jsonl")}, "--question is for --image alone"),
        ({"jsonl": Path("asked.jsonl"), "question": None, "image": Path(".")}, "is a folder: with --jsonl"),
        ({"out": Path(".")}, "is a folder: name a file for --out"),
    ],
)
def test_a_request_that_asks_nothing_or_two_things_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        asks(**given)


def test_a_checkout_that_was_never_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picture.png").write_bytes(picture(3))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="^models/backbone is missing: run `dvc repro`"):
        predict_command(asks())


def test_a_broken_calibration_is_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(checkout, tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    pruning = Path("data/calibrate/pruning.json")
    pruning.unlink()
    with pytest.raises(ValueError, match=r"pruning\.json is missing"):
        predict_command(asks())
    write_json(pruning, {"chosen": {"layer": 9, "dominant": 6, "contextual": 3}})
    record_run(Path())
    with pytest.raises(ValueError, match="layer 9 is not among the encoder layers"):
        predict_command(asks())


@pytest.fixture
def folder(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of pictures, some below others, and cut answers: random weights never end one."""
    monkeypatch.setattr("stages.evaluation.answer.MAX_NEW_TOKENS", 4)
    for seed, name in enumerate(("b.png", "a.PNG", "more/c.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(picture(seed))
    (tmp_path / "photos/notes.txt").write_text("no picture\n")
    return tmp_path / "photos"


def answered(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def alone(image: Path, question: str, capsys: pytest.CaptureFixture[str]) -> str:
    predict_command(asks(image=image, question=question))
    return capsys.readouterr().out.removesuffix("\n")


def test_every_image_of_a_folder_is_answered_as_if_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [folder / "a.PNG", folder / "b.png", folder / "more/c.png"]
    expected = [alone(path, "odd or even ?", capsys) for path in paths]
    predict_command(asks(image=folder, batch=2))
    found = answered(capsys.readouterr().out)
    assert [line["image"] for line in found] == [path.as_posix() for path in paths]
    assert [line["answer"] for line in found] == expected
    assert {line["question"] for line in found} == {"odd or even ?"}


def url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def chat(content: bytes, *answers: str) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": url(content)}},
        {"type": "text", "text": "which digit is this ?"},
    ]
    turns = [{"role": "user", "content": parts}]
    return {"messages": turns + [{"role": "assistant", "content": answer} for answer in answers]}


def write_lines(path: Path, *records: Any) -> Path:
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lines_of_all_kinds_are_answered_into_a_file(
    folder: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines(
        folder / "asked.jsonl",
        {"id": "x7", "image": "more/c.png", "question": "odd or even ?"},
        "",
        {"image": url(picture(2)), "question": "odd or even ?"},
        {"question": "odd or even ?"},
        chat(picture(2)),
        chat(picture(2), "an answer that is not looked at"),
    )
    out = folder / "answers.jsonl"
    given = {"jsonl": file, "question": None, "image": Path("picture.png"), "out": out}
    predict_command(asks(**given, batch=4))
    assert capsys.readouterr().out.endswith(f"{out} holds 5 answers\n")
    first, embedded, unnamed, open_chat, closed_chat = answered(out.read_text())
    one = alone(folder / "more/c.png", "odd or even ?", capsys)
    named = {"image": "more/c.png", "question": "odd or even ?"}
    assert first == {"line": 1, "id": "x7", "answer": one} | named
    assert embedded == {"line": 3, "question": "odd or even ?", "answer": one}
    assert unnamed["answer"] == alone(Path("picture.png"), "odd or even ?", capsys)
    assert open_chat == closed_chat | {"line": 5} and open_chat["question"] == "which digit is this ?"


BAD: list[tuple[Any, str]] = [
    ("{", "line 1: it is not valid JSON"),
    ("[1]", "line 1: it is not an object"),
    ({"image": "b.png"}, "line 1: 'question' is no text or empty"),
    ({"image": "b.png", "question": " "}, "line 1: 'question' is no text or empty"),
    ({"image": "b.png", "question": f"{IMAGE} what ?"}, "line 1: 'question' holds <image>"),
    ({"question": "odd ?"}, "line 1: it names no image"),
    ({"image": 3, "question": "odd ?"}, "line 1: image 3 is not the name of a file"),
    ({"image": "none.png", "question": "odd ?"}, "line 1: image 'none.png' is missing in"),
    ({"image": "../picture.png", "question": "odd ?"}, "leads out of"),
    ({"image": "notes.txt", "question": "odd ?"}, "line 1: image 1 is none of PNG"),
    ({"image": "data:image/png;base64,@@", "question": "odd ?"}, "not base64"),
    ({"image": "b.png", "question": "what \ud800 is"}, "line 1: 'question' holds half a surrogate pair"),
    ({"image": "b.png", "question": "odd ?", "id": "\ud800"}, "line 1: 'id' holds half a surrogate pair"),
    ({"image": "b.png", "question": "odd ?", "id": {"a": 1}}, "line 1: 'id' is of type dict"),
    ({"image": "b.png", "question": "odd ?", "id": True}, "line 1: 'id' is of type bool"),
    ({"image": "\ud800.png", "question": "odd ?"}, "line 1: 'image' holds half a surrogate pair"),
    ({"messages": []}, "line 1: 'messages' is not a list of turns"),
    ({"messages": [{"role": "user", "content": f"what {IMAGE} ?"}]}, "line 1: 1 <image> marks for 0 images"),
]


@pytest.mark.parametrize(("bad", "said"), BAD)
def test_a_bad_line_is_named_by_its_number_before_a_model_is_loaded(
    folder: Path, bad: Any, said: str
) -> None:
    file = write_lines(folder / "asked.jsonl", bad, {"image": "b.png", "question": "odd ?"})
    with pytest.raises(ValueError) as refused:
        lines_of(file, None)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_all_bad_lines_are_named_at_once_and_the_answers_of_before_stay(folder: Path, checkout: Path) -> None:
    good, bad = {"image": "b.png", "question": "odd ?"}, {"image": "none.png", "question": "odd ?"}
    file = write_lines(folder / "asked.jsonl", good, bad, good, {"image": "b.png"})
    out = folder / "answers.jsonl"
    out.write_text("of before\n")
    found = predict("--jsonl", str(file), "--out", str(out))
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert "2 records cannot be used: line 2: image 'none.png' is missing" in found.stderr
    assert "; line 4: 'question' is no text" in found.stderr
    assert (found.stdout, out.read_text()) == ("", "of before\n")
    assert not list(folder.glob(".*.partial"))


def test_a_line_that_is_no_json_hides_no_other_bad_line(folder: Path) -> None:
    file = write_lines(folder / "asked.jsonl", "{", "", "[1]", {"image": "b.png"}, "nonsense")
    with pytest.raises(ValueError, match="4 records cannot be used: line 1: ") as refused:
        lines_of(file, None)
    assert all(f"; line {number}: " in str(refused.value) for number in (3, 4, 5))


def test_a_bad_image_of_a_folder_is_named_and_a_folder_without_images_refused(folder: Path) -> None:
    (folder / "more/bad.jpg").write_bytes(picture(1)[:200])
    with pytest.raises(ValueError, match=r"1 record cannot be used: image '.*more/bad\.jpg' is truncated"):
        about(folder, "odd ?")
    shutil.rmtree(folder / "more")
    for file in folder.iterdir():
        if file.suffix.lower() in SUFFIXES:
            file.unlink()
    with pytest.raises(ValueError, match="holds no image: none of its files ends in .png"):
        about(folder, "odd ?")


def test_a_file_without_lines_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds no line: write one JSON object a line"):
        lines_of(write_lines(folder / "asked.jsonl", "", ""), None)


def test_a_name_that_is_not_utf8_is_refused_before_it_could_lose_all_answers(folder: Path) -> None:
    latin = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    latin.write_bytes(picture(1))
    for ask in (
        lambda: about(latin, "odd ?"),
        lambda: about(folder, "odd ?"),
        lambda: lines_of(write_lines(folder / "asked.jsonl", {"question": "odd ?"}), latin),
    ):
        with pytest.raises(ValueError, match=r"the name '.*caf\\udce9\.png' is not UTF-8 \(rename it\)"):
            ask()


@pytest.mark.parametrize("question", ["", " ", f"what {IMAGE} ?", "what \udce9 is"])
def test_a_question_that_is_none_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="the question (is empty|is not UTF-8|must not contain)"):
        predict_command(asks(question=question))


def test_a_text_that_writes_an_image_as_the_model_does_is_named_by_its_line() -> None:
    asked = [
        Asked({"line": 2}, (Message("user", f"{IMAGE}odd ?"),), ()),
        Asked({"line": 3}, (Message("user", f"{IMAGE}what <|image_pad|> ?"),), ()),
    ]
    with pytest.raises(ValueError, match=r"^line 3 must not contain '<\|image_pad\|>'"):
        require_no_mark(asked, "<|image_pad|>")
    require_no_mark(asked, IMAGE)
    with pytest.raises(ValueError, match=r"^the question must not contain"):
        require_no_mark([Asked({}, asked[1].messages, ())], "<|image_pad|>")
