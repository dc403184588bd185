"""Rows cut from flat arrays are the rows that were given, wherever they lie."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from stages.records import token_rows
from stages.records.token_rows import IGNORED, TokenRow, TokenRows
from stages.records.unit_rows import UnitRows

IMAGE = 7


def drawn(count: int, axes: int = 3) -> list[TokenRow]:
    """Rows of unequal lengths, some without images, of units in no order."""
    dice, found = np.random.default_rng(0), []
    for index in range(count):
        length = int(dice.integers(1, 30))
        ids = tuple(dice.integers(20, size=length).tolist())
        labels = tuple(token if dice.random() < 0.3 else IGNORED for token in ids)
        positions = tuple(tuple(dice.integers(99, size=length).tolist()) for _ in range(axes))
        images = tuple(dice.integers(5, size=index % 3).tolist())
        found.append(TokenRow(ids, labels, positions, images, int(dice.integers(9)), index % 2))
    return found


def written_and_read(rows: Iterable[TokenRow], folder: Path) -> TokenRows:
    TokenRows.of(rows).write(folder)
    return TokenRows.read(folder)


@pytest.mark.parametrize(
    "kept", [lambda rows, folder: TokenRows.of(rows), TokenRows.on_disk, written_and_read]
)
@pytest.mark.parametrize("count", [0, 1, 40])
def test_rows_come_back_as_they_were(
    kept: Callable[[Iterable[TokenRow], Path], TokenRows],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_rows, "TOKENS_PER_PART", 60)
    given = drawn(count)
    found = kept(iter(given), tmp_path)
    assert list(found) == given and len(found) == count
    assert len(found.parts) > 5 or count < 40
    assert found.axes == (3 if count else 1)
    if count:
        assert found[-1] == given[-1] and list(found[1:9:3]) == given[1:9:3]
    with pytest.raises(IndexError):
        found[count]


def test_sums_over_rows_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_rows, "TOKENS_PER_PART", 60)
    given = drawn(40)
    found, slots_I = TokenRows.of(given), np.array([3, 0, 5, 1, 2])
    assert found.lengths().tolist() == [len(row.input_ids) for row in given]
    assert found.occurrences(IMAGE).tolist() == [row.input_ids.count(IMAGE) for row in given]
    assert found.learned().tolist() == [sum(label != IGNORED for label in row.labels) for row in given]
    assert found.slots(slots_I).tolist() == [
        sum(int(slots_I[image]) for image in row.images) for row in given
    ]
    assert found.units().tolist() == [row.unit for row in given]


def test_rows_on_disk_leave_no_name_behind_and_are_memory_mapped(tmp_path: Path) -> None:
    rows = TokenRows.on_disk(drawn(40), tmp_path)
    assert list(tmp_path.iterdir()) == []
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(tmp_path / ".rows-") in mapped.read_text()
    assert list(rows) == drawn(40)


def test_units_have_their_rows_in_order() -> None:
    unit_R = np.array([4, 0, 4, 2, 0, 4])
    units = UnitRows(unit_R)
    assert [rows.tolist() for rows in units] == [[1, 4], [3], [0, 2, 5]]
    assert units[-1].tolist() == [0, 2, 5] and [rows.tolist() for rows in units[:2]] == [[1, 4], [3]]
    assert len(UnitRows(np.zeros(0, dtype=np.int64))) == 0
    with pytest.raises(IndexError):
        units[3]
