"""Public records in the place of private ones: to choose settings before anybody's records are looked at."""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from stages.demonstration.record_set import Record


def stand_in_records(digits: Iterator[Record]) -> Iterator[Record]:
    """Yield records of public digits, their images in a style that the backbone has not been trained on.

    Without that the backbone would know them, and settings could not be told apart.
    """
    styled: dict[str, dict[str, bytes | str]] = {}
    for record in digits:
        if record.image_id not in styled:
            image = record.images[0]
            assert isinstance(image["bytes"], bytes)
            styled[record.image_id] = {**image, "bytes": restyle(image["bytes"], len(styled))}
        yield replace(record, images=[styled[record.image_id]])


def restyle(image: bytes, seed: int) -> bytes:
    """Return a digit image turned, slanted and squeezed further than in pre-training."""
    dice = np.random.default_rng(seed)
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB").rotate(dice.uniform(-50, 50), Image.Resampling.BICUBIC)
    slant, squeeze, height = dice.uniform(-1.4, 1.4), dice.uniform(1.8, 2.6), 2.0
    centre = picture.width / 2
    matrix = (squeeze, slant, centre - centre * (squeeze + slant), 0.0, height, centre - centre * height)
    picture = picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
