"""A sweep has every combination of its values, each spelled whole, and refuses what is no grid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.clones import Revision
from pipeline.compare.experiments import require_records
from pipeline.sweep.command import inputs_as_of
from pipeline.sweep.points import Point, combinations, points_of
from stages.core.params import read_params
from tests.pipeline.conftest import REPOSITORY

BASE = read_params(REPOSITORY / "params.yaml")
GRID = (
    "grid:\n  privacy.epsilon: [1.0, 8]\n  tokens.select: [all, random]\n  calibrate.candidates: [[[6, 3]]]\n"
)


def points(path: Path, base: Mapping[str, Any] = BASE, inputs: str = "code") -> list[Point]:
    return points_of(combinations(path, base), lambda params: inputs)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(GRID)
    return path


def test_every_combination_is_a_point_that_spells_all_its_keys(grid: Path) -> None:
    found = points(grid)
    assert [(point.values["privacy.epsilon"], point.values["tokens.select"]) for point in found] == [
        (1.0, "all"),
        (1.0, "random"),
        (8, "all"),
        (8, "random"),
    ]
    assert found[0].changes == {
        "privacy.epsilon": "1.0",
        "tokens.select": "'all'",
        "calibrate.candidates": "[[6,3]]",
    }
    assert found[3].params["tokens"]["select"] == "random" and BASE["tokens"]["select"] != "random"
    assert len({point.name for point in found}) == 4 and found[0].name.startswith("sweep-")


def test_a_point_is_named_by_what_decides_its_result(grid: Path) -> None:
    names = [point.name for point in points(grid)]
    assert names == [point.name for point in points(grid, {**BASE, "speed": {}})]
    assert not set(names) & {point.name for point in points(grid, inputs="other code")}
    other = {**BASE, "canaries": {**BASE["canaries"], "count": 7}}
    assert not set(names) & {point.name for point in points(grid, other)}


def test_a_point_is_named_by_the_records_that_it_reads_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.compare.experiments.git", lambda *_: "a tree")
    for name in ("one.parquet", "two.parquet", "public.parquet"):
        (tmp_path / name).write_text(name)
    (tmp_path / "sweep.yaml").write_text("grid:\n  data.private.path: [one.parquet, two.parquet]\n")
    data = {**BASE["data"], "public": {**BASE["data"]["public"], "path": "public.parquet"}}
    base = {**BASE, "data": data}

    def names() -> list[str]:
        every = combinations(Path("sweep.yaml"), base)
        return [point.name for point in points_of(every, inputs_as_of(Revision(tmp_path, "abc", ())))]

    before = names()
    (tmp_path / "two.parquet").write_text("other records")
    after = names()
    assert before[0] == after[0] and before[1] != after[1]
    (tmp_path / "public.parquet").write_text("other records")
    assert not set(names()) & set(after)


def test_records_that_are_not_there_are_refused_unless_dvc_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    private, public = (BASE["data"][name]["path"] for name in ("private", "public"))
    for path in (private, f"{public}.dvc"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    require_records(BASE)
    Path(private).unlink()
    with pytest.raises(ValueError, match=f"{private} does not exist"):
        require_records(BASE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {}\n", "a sweep has 1 to 1000 points, got 0"),
        ("grid: {privacy.epsilon: 8.0}\n", "'privacy.epsilon' needs a list of values to try"),
        ("grid: {privacy.epsilon: []}\n", "needs a list of values to try"),
        ("grid: {privacy.epsilom: [8.0]}\n", "sets 'privacy.epsilom', which params.yaml does not have"),
        ("points: {privacy.epsilon: [8.0]}\n", "has unknown keys"),
        ("grid: [", "is not valid YAML"),
        (f"grid: {{privacy.epsilon: {list(range(1, 1002))}}}\n", "a sweep has 1 to 1000 points"),
    ],
)
def test_what_is_no_grid_is_refused_in_one_sentence(grid: Path, text: str, said: str) -> None:
    grid.write_text(text)
    with pytest.raises((ValueError, KeyError), match=said):
        points(grid)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.yaml does not exist"):
        points(tmp_path / "none.yaml")
