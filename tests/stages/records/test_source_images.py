"""An image that is missing, elsewhere, broken or a bomb is refused by its record's id, in one sentence."""

import base64
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refused_source import FORMATS, assert_refused

from stages.records.source import Source, read_source

Example = dict[str, Any]


def bomb() -> bytes:
    """Return a PNG of 50,000 x 50,000 pixels in a few bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", ["truncated", "garbage", "empty", "bomb"])
def test_an_image_that_does_not_decode_is_refused(
    format: str,
    bad: str,
    examples: list[Example],
    write_source: Callable[..., Source],
    picture: Callable[..., bytes],
) -> None:
    content = {
        "truncated": picture(3, (64, 64))[:-40],
        "garbage": b"\x00not an image",
        "empty": b"",
        "bomb": bomb(),
    }[bad]
    reason = {"truncated": "image 2 is truncated or corrupt", "bomb": "image 2 has more than 64000000 pixels"}
    examples[1]["pictures"][1] = content
    assert_refused(write_source(format, examples), reason.get(bad, "image 2 is none of PNG"))


@pytest.mark.parametrize("format", FORMATS)
def test_a_record_whose_image_does_not_decode_can_be_left_out(
    format: str,
    examples: list[Example],
    write_source: Callable[..., Source],
    picture: Callable[..., bytes],
) -> None:
    whole = read_source(write_source(format, examples, "whole"))
    examples[1]["pictures"][1] = picture(3, (64, 64))[:-40]
    set_aside: list[str] = []
    skipping = write_source(format, examples, "given", on_bad_record="skip")
    assert read_source(skipping, set_aside) == [whole[0], *whole[2:]]
    (said,) = set_aside
    assert whole[1].row.id in said and "image 2 is truncated or corrupt" in said
    doubled = write_source(format, [*examples, examples[0]], "doubled", on_bad_record="skip")
    with pytest.raises(ValueError, match="an earlier record has the same id"):
        read_source(doubled)


OUTSIDE = {
    "missing": ("no.png", "is missing in"),
    "parent": ("../secret.png", "leads out of"),
    "far parent": ("images/../../secret.png", "leads out of"),
    "absolute": ("{root}/secret.png", "leads out of"),
    "link": ("link.png", "leads out of"),
    "folder": ("images", "is missing in"),
    "named pipe": ("pipe.png", "is missing in"),
    "remote": ("https://example.org/a.png", "nothing is fetched"),
    "long": ("x" * 300 + ".png", "cannot be read"),
    "nul": ("a\0.png", "is not the name of a file"),
}


@pytest.mark.parametrize("format", ["messages", "llava"])
@pytest.mark.parametrize("bad", OUTSIDE)
def test_an_image_file_that_is_missing_or_elsewhere_is_refused(
    format: str,
    bad: str,
    examples: list[Example],
    write_source: Callable[..., Source],
    picture: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    name, reason = OUTSIDE[bad]
    (tmp_path / "secret.png").write_bytes(picture(5))
    (tmp_path / "given" / "images").mkdir(parents=True)
    (tmp_path / "given" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "given" / "pipe.png")
    examples[1]["pictures"][1] = name.format(root=tmp_path)
    assert_refused(write_source(format, examples), reason)


@pytest.mark.parametrize("format", ["messages", "llava"])
def test_an_image_file_is_found_below_the_folder(
    format: str,
    examples: list[Example],
    write_source: Callable[..., Source],
    picture: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    (tmp_path / "given" / "images").mkdir(parents=True)
    (tmp_path / "given" / "images" / "b.png").write_bytes(picture(7))
    examples[1]["pictures"][1] = "images/b.png"
    source = write_source(format, examples)
    assert read_source(source)[1].row.images == (picture(2), picture(7))
    examples[1]["pictures"][1] = str(tmp_path / "given" / "images" / "b.png")
    assert read_source(write_source(format, examples))[1].row.images == (picture(2), picture(7))


@pytest.mark.parametrize("format", ["messages", "llava"])
def test_an_image_file_beside_a_single_file_source_is_refused_because_dvc_would_not_watch_it(
    format: str,
    examples: list[Example],
    write_source: Callable[..., Source],
    picture: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    source = write_source(format, [examples[2], examples[1] | {"pictures": ["b.png", "b.png"]}])
    (source.path / "b.png").write_bytes(picture(7))
    assert len(read_source(source)) == 2
    assert source.rows is not None
    alone = Source(
        path=source.path / source.rows,
        rows=None,
        format=source.format,
        unit="patient",
        kind=None,
        split=None,
        on_bad_record="stop",
    )
    assert_refused(alone, "lies beside the rows")


BAD_URLS = {
    "remote": ("https://example.org/a.png", "nothing is fetched"),
    "file": ("file:///etc/passwd", "nothing is fetched"),
    "not an image": ("data:text/html;base64,AAAA", "nothing is fetched"),
    "bad base64": ("data:image/png;base64,@@@@", "not base64"),
    "cut base64": ("data:image/png;base64,AAA", "not base64"),
    "not ASCII": ("data:image/png;base64,\u00e9\u00e9\u00e9\u00e9", "not base64"),
    "not an image inside": (
        "data:image/png;base64," + base64.b64encode(b"hello").decode(),
        "image 2 is none of PNG",
    ),
}


@pytest.mark.parametrize("bad", BAD_URLS)
def test_a_url_that_does_not_embed_an_image_is_refused(
    bad: str, examples: list[Example], write_source: Callable[..., Source]
) -> None:
    url, reason = BAD_URLS[bad]
    examples[1]["pictures"][1] = url
    assert_refused(write_source("openai", examples), reason)
