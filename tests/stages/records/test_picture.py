"""What hostile image bytes can do: be refused, and nothing else."""

from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.records.picture import FORMATS, MAX_PIXELS, MODES, check_picture
from stages.records.refusal import Unusable


def encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (24, 24)) -> bytes:
    """Return a small noisy image."""
    image = Image.effect_noise(size, 60).convert(mode)
    file = BytesIO()
    image.save(file, format)
    return file.getvalue()


ENCODED = {format: encoded(format) for format in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_of_an_allowed_format_comes_back_byte_for_byte(format: str) -> None:
    assert check_picture(ENCODED[format], "image 1") == ENCODED[format]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "CMYK"])
def test_a_picture_that_passes_converts_to_rgb(mode: str) -> None:
    content = check_picture(encoded("PNG", mode), "image 1")
    assert Image.open(BytesIO(content)).convert("RGB").size == (24, 24)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bit_grey_is_refused_because_rgb_would_clip_it_to_white(mode: str) -> None:
    file = BytesIO()
    Image.new("I;16", (4, 4), 40_000).save(file, "PNG")
    with pytest.raises(Unusable, match="beyond 8-bit RGB"):
        check_picture(file.getvalue(), "image 1")


@pytest.mark.parametrize("format", ["TIFF", "PPM", "ICO"])
def test_another_format_is_refused(format: str) -> None:
    with pytest.raises(Unusable, match="image 1 is none of PNG, JPEG, WEBP, BMP, GIF"):
        check_picture(encoded(format), "image 1")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_image_is_refused(format: str, kept: float) -> None:
    content = ENCODED[format]
    with pytest.raises(Unusable, match="image 1 is (truncated or corrupt|none of)"):
        check_picture(content[: int(len(content) * kept)], "image 1")


def test_the_pixel_bound_is_sharp() -> None:
    def blank(width: int, height: int) -> bytes:
        file = BytesIO()
        Image.new("1", (width, height)).save(file, "PNG")
        return file.getvalue()

    assert MAX_PIXELS == 8000 * 8000 == 5213 * 12277 - 1
    check_picture(blank(8000, 8000), "image 1")
    with pytest.raises(Unusable, match=f"has more than {MAX_PIXELS} pixels"):
        check_picture(blank(5213, 12277), "image 1")


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 100, 200)]
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    check_picture(file.getvalue(), "image 1")


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_no_damage_to_an_image_escapes_as_another_error(format: str, damage: list[tuple[int, int]]) -> None:
    content = bytearray(ENCODED[format])
    for place, value in damage:
        content[place % min(len(content), 400) if value % 2 else place % len(content)] = value
    try:
        check_picture(bytes(content), "image 1")
    except Unusable as refusal:
        assert "\n" not in str(refusal)
