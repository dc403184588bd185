"""The stage classes form a graph, or are refused with the reason."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.graph import check
from stages.core.contract import Stage, reads, reads_from, writes


def stage(name: str, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> type[Stage]:
    """Return a stage class that reads and writes these paths."""
    ports = {f"in_{place}": reads(path) for place, path in enumerate(inputs)}
    ports |= {f"out_{place}": writes(path) for place, path in enumerate(outputs)}
    body = {"__annotations__": dict.fromkeys(ports, Path), "__module__": f"stages.{name}", **ports}
    return dataclass(frozen=True, kw_only=True)(type(name.title(), (Stage,), body))


FIRST = stage("first", outputs=("data/first",))


def test_a_chain_passes_in_any_order() -> None:
    second = stage("second", inputs=("data/first",), outputs=("data/second.json",))
    third = stage("third", inputs=("data/first", "data/second.json"), outputs=("models/third",))
    check((FIRST, second, third))
    check((third, second, FIRST))


def test_a_file_inside_an_output_directory_has_its_writer() -> None:
    check((FIRST, stage("second", inputs=("data/first/rows.parquet",), outputs=("data/second",))))


def test_an_input_that_no_stage_writes_is_refused() -> None:
    with pytest.raises(ValueError, match="second reads data/frist, which no stage writes"):
        check((FIRST, stage("second", inputs=("data/frist",), outputs=("data/second",))))


@pytest.mark.parametrize("path", ["data/first", "data/first/part.json", "data"])
def test_two_writers_of_one_output_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="second and first both write"):
        check((FIRST, stage("second", outputs=(path,))))


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['one', 'two'\] form a cycle"):
        check(
            (
                FIRST,
                stage("one", inputs=("data/two", "data/first"), outputs=("data/one",)),
                stage("two", inputs=("data/one",), outputs=("data/two",)),
            )
        )


def test_a_stage_that_reads_its_own_output_is_a_cycle() -> None:
    with pytest.raises(ValueError, match="form a cycle"):
        check((stage("one", inputs=("data/one",), outputs=("data/one",)),))


def test_an_input_that_params_choose_in_a_folder_comes_after_every_writer_in_it() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Chooser(Stage):
        """A stage that reads one entry of a folder and writes what the writer of the other one reads."""

        given: Path = reads_from("chooser.on", below="data/sets")
        out: Path = writes("data/chosen")

    check((stage("maker", outputs=("data/sets/one", "data/sets/two")), Chooser))
    with pytest.raises(ValueError, match="form a cycle"):
        check((Chooser, stage("maker", inputs=("data/chosen",), outputs=("data/sets/two",))))
