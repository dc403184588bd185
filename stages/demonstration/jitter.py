"""Random distortions of public images, as batched tensor operations.

They stand for what an encoder should ignore: pose, handwriting, pen and exposure. No image influences
another.

Shapes: B images, C channels, H and W pixels.
"""

from dataclasses import dataclass
from math import radians

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, max_pool2d


@dataclass(frozen=True)
class Jitter:
    """How far an image may be distorted, each a bound of a uniform distribution."""

    rotation_degrees: float
    smallest_scale: float
    largest_scale: float
    aspect: float
    shear: float
    translation: float
    """In fractions of the image."""
    elastic: float
    """Largest displacement of a smooth random field, in half image widths."""
    pen: float
    """Share of images whose strokes are thickened or thinned by one pixel, wholly or in part."""
    sharpening: float
    """Largest slope of the random S-curve that turns blurred strokes into crisp ones."""
    dimming: float
    """Largest loss of contrast."""
    noise: float
    """Largest standard deviation of pixel noise."""


def distort(images_BCHW: Tensor, jitter: Jitter, generator: Generator) -> Tensor:
    """Return distorted copies of images whose values lie in [0, 1]."""
    warped_BCHW = _warp(images_BCHW, jitter, generator)
    return _expose(_redraw(warped_BCHW, jitter, generator), jitter, generator)


def _uniform(low: float, high: float, count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _warp(images_BCHW: Tensor, jitter: Jitter, generator: Generator) -> Tensor:
    """Rotate, scale, shear, translate and bend every image by its own amounts, on a black ground.

    Not the border's pixels: a digit that touches the border would be smeared to the edge when it shrinks.
    """
    count, _, height, width = images_BCHW.shape
    angle_B = _uniform(-radians(jitter.rotation_degrees), radians(jitter.rotation_degrees), count, generator)
    scale_B = _uniform(jitter.smallest_scale, jitter.largest_scale, count, generator)
    aspect_B = _uniform(1 - jitter.aspect, 1 + jitter.aspect, count, generator)
    shear_B = _uniform(-jitter.shear, jitter.shear, count, generator)
    shift_B2 = _uniform(-2 * jitter.translation, 2 * jitter.translation, count * 2, generator).view(count, 2)
    cosine_B, sine_B = angle_B.cos() / scale_B, angle_B.sin() / scale_B
    affine_B23 = torch.stack(
        [
            torch.stack([cosine_B * aspect_B, cosine_B * shear_B - sine_B, shift_B2[:, 0]], dim=1),
            torch.stack([sine_B * aspect_B, sine_B * shear_B + cosine_B, shift_B2[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid_BHW2 = affine_grid(affine_B23, [count, 1, height, width], align_corners=False)
    coarse_B244 = torch.rand(count, 2, 4, 4, generator=generator) * 2 - 1
    field_B2HW = interpolate(coarse_B244, size=(height, width), mode="bicubic", align_corners=True)
    grid_BHW2 = grid_BHW2 + jitter.elastic * field_B2HW.permute(0, 2, 3, 1)
    return grid_sample(images_BCHW, grid_BHW2, padding_mode="zeros", align_corners=False)


def _redraw(images_BCHW: Tensor, jitter: Jitter, generator: Generator) -> Tensor:
    """Thicken or thin some strokes, then pass all images through S-curves of random slope and threshold."""
    count = len(images_BCHW)
    amount_B = _uniform(-1, 1, count, generator) * (_uniform(0, 1, count, generator) < jitter.pen)
    amount_B111 = amount_B.view(-1, 1, 1, 1)
    thick_BCHW = max_pool2d(images_BCHW, 3, stride=1, padding=1)
    thin_BCHW = -max_pool2d(-images_BCHW, 3, stride=1, padding=1)
    other_BCHW = torch.where(amount_B111 > 0, thick_BCHW, thin_BCHW)
    drawn_BCHW = images_BCHW + amount_B111.abs() * (other_BCHW - images_BCHW)
    if jitter.sharpening == 0:
        return drawn_BCHW
    slope_B111 = _uniform(1, jitter.sharpening, count, generator).view(-1, 1, 1, 1)
    threshold_B111 = _uniform(0.25, 0.6, count, generator).view(-1, 1, 1, 1)
    low_B111 = (-slope_B111 * threshold_B111).sigmoid()
    high_B111 = (slope_B111 * (1 - threshold_B111)).sigmoid()
    curve_BCHW = (slope_B111 * (drawn_BCHW - threshold_B111)).sigmoid()
    return (curve_BCHW - low_B111) / (high_B111 - low_B111)


def _expose(images_BCHW: Tensor, jitter: Jitter, generator: Generator) -> Tensor:
    """Lower the contrast of every image by its own amount and add pixel noise of its own strength."""
    count = len(images_BCHW)
    contrast_B111 = _uniform(1 - jitter.dimming, 1, count, generator).view(-1, 1, 1, 1)
    strength_B111 = _uniform(0, jitter.noise, count, generator).view(-1, 1, 1, 1)
    noise_BCHW = torch.randn(images_BCHW.shape, generator=generator)
    return (images_BCHW * contrast_B111 + strength_B111 * noise_BCHW).clamp(0, 1)
