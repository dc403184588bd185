"""The encoded set is salted by what only the holder of its records knows."""

from pathlib import Path

from stages.encode import _salt


def test_the_salt_is_a_function_of_the_records_salt_and_is_not_it(tmp_path: Path) -> None:
    salts = []
    for content in ("a" * 64 + "\n", "b" * 64 + "\n"):
        (tmp_path / "salt").write_text(content)
        salts.append(_salt(tmp_path))
        assert _salt(tmp_path) == salts[-1] and len(salts[-1]) == 64 and salts[-1] not in content
    assert salts[0] != salts[1]
