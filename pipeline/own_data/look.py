"""What records are like, for the terminal of their owner and for nobody else: no file keeps it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from stages.records.source import Problem, Source, checked_records

SHOWN = 100
"""Problems that are told; a file that has more has one cause."""


@dataclass(frozen=True)
class Look:
    """Counts of private records."""

    source: Source
    rows: int
    images: int
    image_bytes: int
    rows_per_unit: tuple[int, ...]
    """Of every unit, ascending."""
    names: frozenset[str]
    """Of the units; compared, and never shown."""
    kinds: int
    problems: tuple[Problem, ...]

    @property
    def units(self) -> int:
        """Return how many units there are."""
        return len(self.rows_per_unit)


def look_at(source: Source) -> Look:
    """Read and check every record; errors are those of a file that cannot be read at all."""
    units: Counter[str] = Counter()
    kinds: set[str] = set()
    pictures: dict[int, int] = {}
    images, problems = 0, list[Problem]()
    for found in checked_records(source):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        units[found.row.unit] += 1
        kinds.add(found.row.kind)
        images += len(found.row.images)
        pictures |= {id(image): len(image) for image in found.row.images}
    return Look(
        source=source,
        rows=units.total(),
        images=images,
        image_bytes=sum(pictures.values()),
        rows_per_unit=tuple(sorted(units.values())),
        names=frozenset(units),
        kinds=len(kinds),
        problems=tuple(problems),
    )


def show(look: Look, rows_per_unit: int) -> None:
    """Print what was found, and every problem once."""
    table = Table(title="Your records, seen on this terminal only", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in _lines(look, rows_per_unit):
        table.add_row(name, value)
    Console().print(table)
    for problem in look.problems[:SHOWN]:
        print(problem)
    if len(look.problems) > SHOWN:
        print(f"and {len(look.problems) - SHOWN} more")


def _lines(look: Look, rows_per_unit: int) -> Sequence[tuple[str, str]]:
    source = look.source
    found = [
        ("where", f"{source.path / (source.rows or '*.parquet')}, {source.format}"),
        ("rows", f"{look.rows} can be used, {len(look.problems)} cannot"),
        ("images", f"{look.images} in rows, {look.image_bytes / 1e6:.1f} MB"),
    ]
    if source.kind is not None:
        found.append(("kinds", f"{look.kinds}, by '{source.kind}'"))
    if look.units:
        most, over = look.rows_per_unit[-1], sum(count > rows_per_unit for count in look.rows_per_unit)
        spread = f"{look.rows_per_unit[0]} to {most}, median {median(look.rows_per_unit):g}"
        found += [("units", f"{look.units}, by '{source.unit}'"), ("rows a unit", spread)]
        if over:
            found.append(
                (
                    "more than the bound",
                    f"{over} units: a step looks at {rows_per_unit} of their rows, drawn anew",
                )
            )
    return found
