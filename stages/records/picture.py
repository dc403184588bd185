"""Images are hostile input: find each one, decode it whole, and bound what decoding may cost."""

import os
import struct
import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from stages.records.refusal import Unusable, first_sentence, quote

MAX_PIXELS = 64_000_000
"""An image of more pixels is taken for a decompression bomb."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
"""Pillow modes that turn into 8-bit RGB without losing what a person sees."""

_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    struct.error,
    MemoryError,
    Warning,
)


def check_picture(content: bytes, name: str) -> bytes:
    """Return ``content`` as it came, once it has decoded whole; of an animation, the first frame.

    Guarantee: whoever decodes it later meets at most ``MAX_PIXELS`` pixels, and one of ``FORMATS`` and
    of ``MODES``. Pillow's warnings count as errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                image.load()
                mode = image.mode
        except _BOMB:
            raise Unusable(f"{name} has more than {MAX_PIXELS} pixels", "scale it down") from None
        except UnidentifiedImageError:
            raise Unusable(f"{name} is none of {', '.join(FORMATS)}", "convert or replace it") from None
        except _BROKEN as error:
            raise Unusable(f"{name} is truncated or corrupt, {first_sentence(error)}", "replace it") from None
    if mode not in MODES:
        raise Unusable(f"{name} has mode {quote(mode)}, beyond 8-bit RGB", "save it with 8 bits a channel")
    return content


def read_picture_file(folder: Path | None, name: object) -> bytes:
    """Return the bytes of the image file ``name`` below ``folder``.

    Guarantee: nothing outside ``folder`` is read, through ``..``, an absolute path or a link.

    Edge cases: ``folder`` is None where the source is a single file. DVC watches that file alone and a
    changed image beside it would go unseen, so that such images are refused.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise Unusable(f"image {quote(name)} is not the name of a file", "name one, or drop the record")
    if "://" in name:
        raise Unusable(f"image {quote(name)} is remote and nothing is fetched", "download it into the folder")
    image = f"image {quote(name)}"
    if folder is None:
        raise Unusable(f"{image} lies beside the rows", "set path to the folder and rows to the file's name")
    path = Path(os.path.realpath(folder / name))
    if not path.is_relative_to(os.path.realpath(folder)):
        raise Unusable(f"{image} leads out of {folder}", "move the file into that folder")
    try:
        if path.is_file():
            return path.read_bytes()
    except OSError as error:
        raise Unusable(f"{image} cannot be read, {error.strerror}", "repair it or drop the record") from None
    raise Unusable(f"{image} is missing in {folder}", "add the file or drop the record")
