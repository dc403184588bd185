"""A record set comes back as it was written, byte for byte the same each time, and salted where private."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.files import sha256
from stages.records.row import Message, Row
from stages.records.store import SALT, content_digest, read_rows, write_rows

SALT_BYTES = bytes(range(32))
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from(("system", "user", "assistant")), st.text()), min_size=1, max_size=3
)
ROWS = st.lists(
    st.builds(
        Row,
        st.text(),
        st.text(),
        st.text(),
        MESSAGES.map(tuple),
        st.lists(st.sampled_from([b"", b"one", b"two\x00", b"\xff"]), max_size=3).map(tuple),
    ),
    max_size=6,
)
ROW = Row("a", "u", "all", (Message("user", "<image>\nq"), Message("assistant", "b")), (b"picture",))


@settings(deadline=None, max_examples=40)
@given(ROWS, st.sampled_from([None, SALT_BYTES]))
def test_rows_come_back_as_they_were_written(rows: list[Row], salt: bytes | None) -> None:
    with TemporaryDirectory() as folder:
        write_rows(Path(folder) / "set", rows, salt)
        assert read_rows(Path(folder) / "set") == rows


@settings(deadline=None, max_examples=20)
@given(ROWS, ROWS)
def test_the_content_digest_is_equal_for_equal_rows_only(one: list[Row], other: list[Row]) -> None:
    assert (content_digest(one) == content_digest(other)) == (one == other)


def test_equal_rows_and_salt_give_equal_bytes(tmp_path: Path) -> None:
    write_rows(tmp_path / "one", [ROW] * 3, SALT_BYTES)
    write_rows(tmp_path / "two", [ROW] * 3, SALT_BYTES)
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two")


def test_another_salt_gives_another_digest_and_a_public_set_has_none(tmp_path: Path) -> None:
    write_rows(tmp_path / "one", [ROW], SALT_BYTES)
    write_rows(tmp_path / "two", [ROW], hashlib.sha256(b"other").digest())
    write_rows(tmp_path / "public", [ROW], None)
    assert sha256(tmp_path / "one") != sha256(tmp_path / "two")
    assert (tmp_path / "one" / SALT).read_text() == SALT_BYTES.hex() + "\n"
    assert not (tmp_path / "public" / SALT).exists()


def test_an_image_shown_often_is_stored_once(tmp_path: Path) -> None:
    picture = bytes(range(256)) * 400
    row = Row("a", "u", "all", ROW.messages, (picture,))
    write_rows(tmp_path / "set", [row] * 50, None)
    assert sum(file.stat().st_size for file in (tmp_path / "set").iterdir()) < 2 * len(picture)
    rows = read_rows(tmp_path / "set")
    assert rows == [row] * 50
    assert rows[0].images[0] is rows[49].images[0]


def test_a_set_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write_rows(tmp_path / "set", [ROW], SALT_BYTES)
    write_rows(tmp_path / "set", [ROW, ROW], None)
    assert read_rows(tmp_path / "set") == [ROW, ROW]
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["images.parquet", "rows.parquet", "set"]


def test_a_missing_or_broken_set_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no is missing: run `dvc repro`"):
        read_rows(tmp_path / "no")
    write_rows(tmp_path / "set", [ROW], None)
    for name in ("rows.parquet", "images.parquet"):
        content = (tmp_path / "set" / name).read_bytes()
        (tmp_path / "set" / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="set is no record set") as refusal:
            read_rows(tmp_path / "set")
        assert "\n" not in str(refusal.value)
        (tmp_path / "set" / name).write_bytes(content)
