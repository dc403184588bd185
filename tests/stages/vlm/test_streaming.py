"""Encoding from disk gives the set that encoding in memory gives, whatever was encoded before."""

import gc
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from models import ALL, PRUNED, load_float64, picture, rows
from stages.core.progress import PARTS, in_parts
from stages.core.ranks import ALONE
from stages.records import token_rows
from stages.records.encoded import EncodedSet, collate, read_encoded, write_encoded
from stages.records.row import Message, Row
from stages.records.store import StoredRecords, read_rows, write_rows
from stages.vlm import image_cache, streaming
from stages.vlm.encoder import encode_set
from stages.vlm.image_cache import ImageCache, digest_of, in_use, remove_others
from stages.vlm.loaded import Loaded
from stages.vlm.seen import Frame, KeptImage
from stages.vlm.selection import Rule
from stages.vlm.streaming import Forecast, encode_stored

UNITS = 9


@pytest.fixture(scope="module")
def loaded(tiny_llava: Path) -> Loaded:
    return load_float64(tiny_llava)


class Encoder(NamedTuple):
    """Encodes a record set, and counts the images that went through the tower."""

    encode: Callable[..., EncodedSet]
    looked: list[bytes]


@pytest.fixture
def encoder(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    looked: list[bytes] = []
    real = streaming.encode_image

    def counted(loaded: Loaded, image: bytes, rule: Rule) -> Any:
        looked.append(image)
        return real(loaded, image, rule)

    monkeypatch.setattr(streaming, "encode_image", counted)
    monkeypatch.setattr(streaming, "SHARD", 4)
    monkeypatch.setattr(streaming, "ROUND", 2)

    def encode(given: list[Row], rule: Rule = PRUNED, keep: bool = True) -> EncodedSet:
        write_rows(tmp_path / "records", given, None)
        cache = ImageCache.open(tmp_path / "cache")
        stored = StoredRecords.open(tmp_path / "records")
        digests, found = encode_stored(loaded, stored, rule, cache, lambda done: None, ALONE, is_public=True)
        write_encoded(tmp_path / "encoded", found, None)
        if keep:
            cache.retain(set(digests))
        return read_encoded(tmp_path / "encoded")

    return Encoder(encode, looked)


def assert_same(found: EncodedSet, expected: EncodedSet) -> None:
    assert list(found.rows) == list(expected.rows) and found.kinds == expected.kinds
    assert found.visual_tokens == expected.visual_tokens
    assert len(found.features) == len(expected.features) > 0
    assert all(map(torch.equal, found.features, expected.features))


@pytest.mark.parametrize("rule", [ALL, PRUNED], ids=["all tokens", "pruned"])
def test_from_disk_as_in_memory(loaded: Loaded, encoder: Encoder, rule: Rule) -> None:
    given = rows(UNITS, rows_per_unit=2, images_per_row=2)
    assert_same(encoder.encode(given, rule), encode_set(loaded, given, rule))


def test_nothing_is_encoded_twice_and_one_changed_record_alone(loaded: Loaded, encoder: Encoder) -> None:
    given = rows(UNITS)
    encoder.encode(given)
    assert len(encoder.looked) == UNITS
    encoder.encode(given)
    assert len(encoder.looked) == UNITS
    changed = [*given[:3], rows(UNITS + 1)[-1], *given[4:]]
    assert_same(encoder.encode(changed), encode_set(loaded, changed, PRUNED))
    assert encoder.looked[UNITS:] == [changed[3].images[0]]


def test_a_kill_loses_at_most_a_shard(
    loaded: Loaded, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, through = rows(UNITS), streaming.encode_image

    def killed(loaded: Loaded, image: bytes, rule: Rule) -> Any:
        if len(encoder.looked) == 7:
            raise KeyboardInterrupt
        return through(loaded, image, rule)

    with monkeypatch.context() as patch:
        patch.setattr(streaming, "encode_image", killed)
        with pytest.raises(KeyboardInterrupt):
            encoder.encode(given)
    before = len(encoder.looked)
    assert_same(encoder.encode(given), encode_set(loaded, given, PRUNED))
    assert len(encoder.looked) - before == UNITS - 4, "one shard of four was on disk"


def test_what_left_the_records_leaves_the_disk(encoder: Encoder, tmp_path: Path) -> None:
    given = rows(UNITS)
    encoder.encode(given)
    gone = digest_of(given[2].images[0])
    assert gone.encode() in b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    encoder.encode([*given[:2], *given[3:]])
    cache = ImageCache.open(tmp_path / "cache")
    assert gone not in cache and digest_of(given[0].images[0]) in cache
    assert gone.encode() not in b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())


def test_a_broken_shard_is_encoded_again(loaded: Loaded, encoder: Encoder, tmp_path: Path) -> None:
    given = rows(UNITS)
    encoder.encode(given)
    shards = sorted((tmp_path / "cache").glob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:100])
    assert_same(encoder.encode(given), encode_set(loaded, given, PRUNED))
    assert UNITS < len(encoder.looked) < 2 * UNITS


def test_a_disk_that_will_not_do_is_refused_before_the_rest(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(streaming.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="is too small for what encoding will write"):
        encoder.encode(rows(UNITS))
    assert len(encoder.looked) == 2


def test_a_private_set_says_nothing_of_its_size(
    encoder: Encoder, capsys: pytest.CaptureFixture[str], loaded: Loaded, tmp_path: Path
) -> None:
    encoder.encode(rows(UNITS))
    assert "MB of disk" in capsys.readouterr().out
    cache, told = ImageCache.open(tmp_path / "again"), []
    stored = StoredRecords.open(tmp_path / "records")
    encode_stored(loaded, stored, PRUNED, cache, in_parts(UNITS, told.append), ALONE, is_public=False)
    assert capsys.readouterr().out == ""
    assert told == list(range(1, PARTS + 1))


def test_shards_that_hold_the_same_image_both_lose_it(encoder: Encoder, tmp_path: Path) -> None:
    """Two runs that share a folder, or a kill while images are removed, leave an image in two shards."""
    given = rows(4)
    encoder.encode(given)
    names = [digest_of(row.images[0]) for row in given]
    cache = ImageCache.open(tmp_path / "cache")
    cache.add(names[1:3], [cache.kept(name) for name in names[1:3]])
    ImageCache.open(tmp_path / "cache").retain({names[0], names[2], names[3]})
    left = ImageCache.open(tmp_path / "cache")
    assert [name in left for name in names] == [True, False, True, True]
    assert names[1].encode() not in b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())


def test_half_written_files_go_when_nobody_else_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with in_use(folder):
        left_over = folder / ".abc.safetensors.xyz.partial"
        left_over.write_bytes(b"private")
        with in_use(folder):
            assert left_over.exists(), "somebody else may be writing it"
    with in_use(folder):
        assert not left_over.exists()


def test_an_error_of_the_system_is_not_the_shards(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.encode(rows(2))

    def refused(*given: Any, **more: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "safe_open", refused)
        with pytest.raises(OSError, match="Too many open files"):
            ImageCache.open(tmp_path / "cache")
    assert len(ImageCache.open(tmp_path / "cache")) == 2


def test_an_image_that_cannot_be_encoded_is_named_by_its_record(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, through = rows(4), streaming.encode_image

    def refusing(loaded: Loaded, image: bytes, rule: Rule) -> Any:
        if image == given[2].images[0]:
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return through(loaded, image, rule)

    monkeypatch.setattr(streaming, "encode_image", refusing)
    with pytest.raises(ValueError, match=f"the image of record '{given[2].id}' cannot be encoded: absolute"):
        encoder.encode(given)


def test_other_models_and_rules_are_removed_unless_somebody_uses_them(tmp_path: Path) -> None:
    mine, used, idle = (tmp_path / name for name in ("mine", "used", "idle"))
    with in_use(mine), in_use(used):
        with in_use(idle):
            pass
        remove_others(mine)
        assert mine.is_dir() and used.is_dir() and not idle.exists()


def test_images_are_read_a_group_at_a_time(tmp_path: Path) -> None:
    given = rows(150)
    write_rows(tmp_path / "records", given, None)
    stored = StoredRecords.open(tmp_path / "records")
    assert len(stored.images) == 150 and stored.images.file.num_row_groups == 3
    whole = read_rows(tmp_path / "records")
    assert [stored.images[shown[0]] for _, shown in stored.rows()] == [row.images[0] for row in whole]
    assert len(stored.images.group[1]) == 22
    assert stored.images[10:12] == [picture(100), picture(110)]
    with pytest.raises(IndexError):
        stored.images[150]
    assert [row.images for row, _ in stored.rows()] == [()] * 150
    with pytest.raises(ValueError, match="is missing"):
        StoredRecords.open(tmp_path / "nothing")


def test_text_and_tokens_of_rows_are_not_gathered_in_memory(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the rows, each of some 200 tokens: an index of them grows, and nothing else."""
    monkeypatch.setattr(token_rows, "TOKENS_PER_PART", 8000)
    monkeypatch.setattr("stages.records.store._GROUP", 50)
    long = Message("assistant", "three " * 200)

    def peak(count: int) -> int:
        given = [
            replace(row, messages=(row.messages[0], long)) for row in rows(count // 10, rows_per_unit=10)
        ]
        given = [replace(row, images=given[0].images) for row in given]
        write_rows(tmp_path / "records", given, None)
        del given
        stored, cache = StoredRecords.open(tmp_path / "records"), ImageCache.open(tmp_path / "cache")
        gc.collect()
        tracemalloc.start()
        _, made = encode_stored(loaded, stored, PRUNED, cache, lambda done: None, ALONE, is_public=True)
        write_encoded(tmp_path / "encoded", made, None)
        found = read_encoded(tmp_path / "encoded")
        collate(found, found.rows_by_unit()[0].tolist())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found.rows[0].input_ids) > 200 and len(found.rows) == count
        return most

    peak(100)  # what a first call leaves behind
    few, many = peak(100), peak(400)
    assert (many - few) / 300 < 1000, "bytes a row; its text and tokens would be some 8,000"


def test_the_cache_is_the_owners_alone(encoder: Encoder, tmp_path: Path) -> None:
    encoder.encode(rows(2))
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "cache").glob("*.safetensors"))


def test_the_forecast_is_told_once_and_never_of_less_than_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 8.0, 0.0, 8.0])
    monkeypatch.setattr("stages.vlm.streaming.time.monotonic", lambda: next(clock))
    kept = KeptImage(torch.zeros(4, 8), (0, 1, 2, 3), Frame("", (4,)))
    for cached, left in ((0, 32), (19, 0)):  # more were encoded than seemed to be missing
        forecast = Forecast(tmp_path, 20, cached, True)
        forecast.show(4, [kept] * 4)
        forecast.show(4, [kept] * 4)
        assert capsys.readouterr().out.startswith(f"encode: about {left} s and ")
