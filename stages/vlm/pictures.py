"""Pictures of what a model looks at: importance as heat, and patches that stay, are merged or are dropped.

Shapes: P patches of one image, over all panels that the image was taken apart into.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from stages.vlm.seen import Box, Fate, Frame

Colour = tuple[int, int, int, int]
FATES: dict[Fate, Colour] = {
    "kept": (0, 0, 0, 0),
    "centre": (40, 110, 255, 110),
    "merged": (90, 90, 90, 200),
    "dropped": (0, 0, 0, 235),
}
"""Colour laid over a patch: as it is; blue, the centre of a merged token; grey, merged; black, dropped."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_SIDE, _LABEL = 144, 16


@dataclass(frozen=True)
class Panelled:
    """An image and the panels that a model took it apart into."""

    picture: Image.Image
    panels: tuple[tuple[int, int], ...]
    frame: Frame

    def drawn(self, colour_of: Callable[[int], Colour]) -> Image.Image:
        """Lay a colour over each patch; panels that show the whole image stand beside each other."""
        canvases: list[Image.Image] = []
        tiles: Image.Image | None = None
        first = 0
        boxes = self.frame.boxes or (WHOLE,) * len(self.panels)
        for (rows, columns), box in zip(self.panels, boxes, strict=True):
            if box == WHOLE or tiles is None:
                canvases.append(_fitted(self.picture))
                tiles = None if box == WHOLE else canvases[-1]
            colours = [colour_of(first + patch) for patch in range(rows * columns)]
            _lay(canvases[-1], colours, rows, columns, box)
            first += rows * columns
        return beside(canvases)


def heat(scores_P: Sequence[float]) -> Callable[[int], Colour]:
    """Return colours by rank, from dark (least important) over red to yellow (most)."""
    order = sorted(range(len(scores_P)), key=lambda patch: scores_P[patch])
    rank = {patch: place / max(1, len(order) - 1) for place, patch in enumerate(order)}

    def colour_of(patch: int) -> Colour:
        share = rank[patch]
        return (int(min(1, 2 * share) * 255), int(max(0, 2 * share - 1) * 230), 0, 170)

    return colour_of


def png(picture: Image.Image) -> bytes:
    """Return the file of a picture."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures in one row."""
    gap = 4
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGBA", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def sheet(titles: Sequence[str], rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Put rows of pictures under each other, columns under their titles."""
    gap, font = 8, ImageFont.load_default(12)
    widths = [max(row[column].width for row in rows) for column in range(len(titles))]
    widths = [max(width, int(font.getlength(title)) + 2) for width, title in zip(widths, titles, strict=True)]
    heights = [max(picture.height for picture in row) for row in rows]
    size = (sum(widths) + gap * (len(widths) + 1), sum(heights) + gap * (len(heights) + 1) + _LABEL)
    found = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(found)
    left = gap
    for column, title in enumerate(titles):
        draw.text((left, 4), title, fill="black", font=font)
        top = gap + _LABEL
        for row, height in zip(rows, heights, strict=True):
            found.paste(row[column].convert("RGB"), (left, top))
            top += height + gap
        left += widths[column] + gap
    return found


def notice(text: str) -> Image.Image:
    """Return a picture that only says why there is none."""
    found = Image.new("RGB", (620, 40), "white")
    ImageDraw.Draw(found).text((8, 12), text, fill="black", font=ImageFont.load_default(14))
    return found


def _fitted(picture: Image.Image) -> Image.Image:
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.convert("RGBA").resize(size, way)


def _lay(canvas: Image.Image, colours: Sequence[Colour], rows: int, columns: int, box: Box) -> None:
    """Lay the colours of a panel's patches, row by row, over the part of the canvas that it shows."""
    cells = Image.new("RGBA", (columns, rows))
    cells.putdata(list(colours))
    left, top = round(box[0] * canvas.width), round(box[1] * canvas.height)
    right, bottom = round(box[2] * canvas.width), round(box[3] * canvas.height)
    laid = cells.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.NEAREST)
    canvas.alpha_composite(laid, (left, top))
