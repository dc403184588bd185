"""A chart as inline SVG, with what it shows in words and as a table beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert
from markupsafe import Markup, escape

FIRST, INK, MUTED = "var(--first)", "var(--ink)", "var(--muted)"
SERIES = (FIRST, "var(--second)", "var(--third)", "var(--fourth)", MUTED)
"""Colours of the page, which change with its scheme; the first is that of what was chosen."""
_CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "labelFontSize": 13,
        "titleFontSize": 13,
        "gridColor": "var(--line)",
        "domainColor": MUTED,
        "tickColor": MUTED,
        "titlePadding": 8,
    },
    "header": {"labelColor": INK, "labelFontSize": 13},
    "legend": {"labelColor": INK, "labelFontSize": 13, "orient": "top", "title": None, "columns": 3},
}


@dataclass(frozen=True)
class Chart:
    """A drawing, its text alternative, and the numbers that it shows."""

    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def drawn(
    chart: Any,
    says: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = 430,
    height: int | None = 210,
) -> Chart:
    """Return a chart of ``width`` and ``height``, or of its own size where they are None.

    ``says`` is read in its place by who cannot see it. Equal charts give equal text, and Vega escapes every
    label.
    """
    sized = chart if width is None else chart.properties(width=width, height=height)
    text = vl_convert.vegalite_to_svg(sized.to_dict() | {"config": _CONFIG})
    head, tail = text.split("<svg", 1)
    named = f'{head}<svg role="img" aria-label="{escape(says)}"{tail}'
    return Chart(Markup(named), tuple(columns), tuple(tuple(row) for row in rows))
