"""A fingerprint changes with each parameter, input byte and code file of its stage, and with nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.core.fingerprint import ResolvedInputs
from stages.ingest import Ingest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the code beside small input files."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "params.yaml").read_text()
    for name in ("private", "public"):
        (tmp_path / name).write_text(f"{name} rows")
        text = text.replace(f"data/demonstration/{name}.parquet", name)
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def of(checkout: Path) -> str:
    """Return the fingerprint of ingest in a checkout."""
    return ResolvedInputs.of(Ingest.load(checkout / "params.yaml"), checkout).fingerprint()


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Return an edit of one file."""

    def apply(checkout: Path) -> None:
        text = (checkout / name).read_text()
        assert old in text
        (checkout / name).write_text(text.replace(old, new, 1))

    return apply


@pytest.mark.parametrize(
    "change",
    [
        edit("params.yaml", "heldout: 0.2", "heldout: 0.3"),
        edit("params.yaml", "unit: image_id", "unit: kind"),
        edit("params.yaml", "max_units: ", "max_units: 1"),
        edit("private", "rows", "row5"),
        edit("public", "rows", "row5"),
        edit("stages/ingest.py", "print(", "print( "),
        edit("stages/records/llava.py", "human", "person"),
    ],
)
def test_a_parameter_an_input_byte_and_a_code_file_each_change_it(
    change: Callable[[Path], None], checkout: Path
) -> None:
    before = of(checkout)
    change(checkout)
    assert of(checkout) != before


def test_an_upgraded_library_changes_it(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(checkout)
    monkeypatch.setattr("stages.core.fingerprint.versions", lambda: {"torch": "0"})
    assert of(checkout) != before


@pytest.mark.parametrize(
    "change",
    [
        edit("params.yaml", "micro_batch: ", "micro_batch: 1"),
        edit("params.yaml", "speed:", "# a remark\nspeed:"),
        edit("stages/records/__init__.py", "Image", "IMAGE"),
    ],
)
def test_speed_remarks_and_words_do_not_change_it(change: Callable[[Path], None], checkout: Path) -> None:
    before = of(checkout)
    change(checkout)
    assert of(checkout) == before


def test_it_is_32_hex_digits_and_the_place_of_the_checkout_does_not_matter(
    checkout: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(checkout, elsewhere, ignore=shutil.ignore_patterns("elsewhere"))
    assert of(elsewhere) == of(checkout)
    assert len(bytes.fromhex(of(checkout))) == 16
