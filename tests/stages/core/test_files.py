"""A reader meets the old file or the new one, whatever happens to the writer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.files import (
    canonical_json,
    new_directory,
    read_json,
    sha256,
    write_bytes,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[3]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def names(folder: Path) -> list[str]:
    """Return every name below ``folder``."""
    return sorted(entry.relative_to(folder).as_posix() for entry in folder.rglob("*"))


def run_python(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in ``folder`` as a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    write_text(path, "\u00e9")
    assert path.read_bytes() == b"\xc3\xa9"
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["new", "new/file"]


LIMITED = """
import resource
from pathlib import Path
from stages.core.files import write_bytes, new_directory
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    {action}
except OSError as error:
    print(error.errno)
"""


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    done = run_python(LIMITED.format(action="write_bytes(Path('file'), bytes(5000))"), tmp_path)
    assert done.stdout == "27\n", done.stderr  # EFBIG: the limit took effect
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_directory_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    with new_directory(tmp_path / "set") as building:
        write_bytes(building / "a", b"old")
    action = "with new_directory(Path('set')) as building: (building / 'a').write_bytes(bytes(5000))"
    done = run_python(LIMITED.format(action=action), tmp_path)
    assert done.stdout == "27\n", done.stderr
    assert (tmp_path / "set" / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["set", "set/a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_while_building_leaves_the_old_directory(error: type[BaseException], tmp_path: Path) -> None:
    with new_directory(tmp_path / "set") as building:
        write_bytes(building / "a", b"old")
    with pytest.raises(error), new_directory(tmp_path / "set") as building:
        write_bytes(building / "b", b"new")
        raise error
    assert names(tmp_path) == ["set", "set/a"]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with new_directory(tmp_path / "deep" / "set") as building:
            write_bytes(building / "inner" / name, b"x")
    assert names(tmp_path) == ["deep", "deep/set", "deep/set/inner", "deep/set/inner/b"]
    assert (tmp_path / "deep" / "set").stat().st_mode & 0o777 == 0o755


BUILD_FOR_EVER = """
from pathlib import Path
from stages.core.files import new_directory
with new_directory(Path("set")) as building:
    (building / "secret").write_text("half")
    print("building", flush=True)
    time.sleep(60)
"""


def test_kill_9_leaves_the_old_directory_and_a_sibling_that_git_ignores(tmp_path: Path) -> None:
    with new_directory(tmp_path / "set") as building:
        write_bytes(building / "a", b"old")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    writer = subprocess.Popen(
        [sys.executable, "-c", BUILD_FOR_EVER],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "building\n"
    writer.kill()
    writer.communicate()
    assert (tmp_path / "set" / "a").read_bytes() == b"old"
    left = [entry.name for entry in tmp_path.iterdir() if entry.name != "set"]
    assert all(name.startswith(".set.") and name.endswith(".partial") for name in left)


WATCHED = """
import sys
from pathlib import Path
from stages.core.files import new_directory

def build(*names):
    with new_directory(Path("set")) as building:
        for name in names:
            (building / name).touch()

def watch(event, arguments):
    if event in ("os.remove", "os.rmdir", "os.rename"):
        there = Path("set").is_dir()
        print(event, *sorted(file.name for file in Path("set").iterdir()) if there else ["nothing"])

build("a", "b")
sys.addaudithook(watch)
build("c", "d")
"""


def test_no_step_of_a_replacement_shows_a_part_of_a_directory(tmp_path: Path) -> None:
    done = run_python(WATCHED, tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "os.rename a b",
        "os.rename nothing",
        "os.remove c d",
        "os.remove c d",
        "os.rmdir c d",
    ]


@given(JSON)
def test_canonical_json_is_one_spelling_that_reads_back(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text == canonical_json(json.loads(text))
    assert text.endswith(b"\n") and not text.endswith(b"\n\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_refused(number: float) -> None:
    with pytest.raises(ValueError):
        canonical_json({"a": number})


def test_json_comes_back_and_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None]})
    assert read_json(tmp_path / "a.json") == {"b": [1, None]}
    with pytest.raises(ValueError, match="no.json is missing: run `dvc repro`"):
        read_json(tmp_path / "no.json")
    for broken in (b"{", b"\xff", b""):
        (tmp_path / "a.json").write_bytes(broken)
        with pytest.raises(ValueError, match="a.json is not valid JSON") as refusal:
            read_json(tmp_path / "a.json")
        assert "\n" not in str(refusal.value)


def test_the_digest_of_a_directory_sees_names_contents_and_borders(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        with new_directory(tmp_path / "set") as building:
            for name, content in files.items():
                write_text(building / name.replace("__", "/"), content)
        return sha256(tmp_path / "set")

    assert digest(a="1", b="2") == digest(b="2", a="1")
    different = [{"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": ""}, {"a__b": "1"}, {"ab": "1"}, {}]
    assert len({digest(**files) for files in different}) == len(different)


def test_the_digest_of_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no is missing"):
        sha256(tmp_path / "no")
