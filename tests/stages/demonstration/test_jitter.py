"""Jitter is a function of the generator, keeps images valid and leaves each image to itself."""

import torch

from stages.demonstration.jitter import Jitter, distort

NONE = Jitter(
    rotation_degrees=0.0,
    smallest_scale=1.0,
    largest_scale=1.0,
    aspect=0.0,
    shear=0.0,
    translation=0.0,
    elastic=0.0,
    pen=0.0,
    sharpening=0.0,
    dimming=0.0,
    noise=0.0,
)
STRONG = Jitter(
    rotation_degrees=15.0,
    smallest_scale=0.5,
    largest_scale=1.1,
    aspect=0.2,
    shear=0.3,
    translation=0.1,
    elastic=0.1,
    pen=0.6,
    sharpening=12.0,
    dimming=0.4,
    noise=0.05,
)


def _images() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_no_jitter_changes_nothing() -> None:
    torch.testing.assert_close(distort(_images(), NONE, torch.Generator().manual_seed(1)), _images())


def test_jitter_keeps_values_in_range_and_repeats_with_its_generator() -> None:
    once, again = (distort(_images(), STRONG, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.min() >= 0 and once.max() <= 1
    assert not torch.allclose(once, _images(), atol=0.1)


def test_no_image_influences_another() -> None:
    changed = _images()
    changed[0] = 0
    before, after = (distort(x, STRONG, torch.Generator().manual_seed(1)) for x in (_images(), changed))
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])


def test_an_image_that_touches_the_border_is_not_smeared_when_it_shrinks() -> None:
    half = Jitter(**{**NONE.__dict__, "smallest_scale": 0.5, "largest_scale": 0.5})
    shrunk = distort(torch.ones(1, 3, 32, 32), half, torch.Generator().manual_seed(1))
    assert shrunk[0, :, :6].max() == 0
    assert shrunk[0, :, 12:20, 12:20].min() == 1
