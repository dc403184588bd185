"""Parameters are all there, all known and of their type, or one sentence says which is not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from stages.core.params import read_params, read_section


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A section in a section."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One field of every type that a section can hold."""

    rate: float
    steps: int
    on: bool
    kind: Literal["a", "b"]
    maybe: Literal["x", "y"] | None
    revision: str | None
    path: Path
    names: tuple[str, ...]
    pair: tuple[int, float]
    inner: Inner


GOOD: dict[str, Any] = {
    "rate": 0.5,
    "steps": 3,
    "on": True,
    "kind": "a",
    "maybe": None,
    "revision": None,
    "path": "data/x",
    "names": ["q", "v"],
    "pair": [1, 2],
    "inner": {"name": "n"},
}
FILE = Path("params.yaml")


def read(values: dict[str, Any]) -> Section:
    """Read ``values`` as the section ``some.part``."""
    return read_section({"some": {"part": values}}, "some.part", Section)


def test_good_values_become_the_section() -> None:
    assert read(GOOD) == Section(
        rate=0.5,
        steps=3,
        on=True,
        kind="a",
        maybe=None,
        revision=None,
        path=Path("data/x"),
        names=("q", "v"),
        pair=(1, 2.0),
        inner=Inner(name="n"),
    )
    assert read(GOOD | {"maybe": "x", "revision": "r"}).maybe == "x"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rate", "0.5"),
        ("rate", True),
        ("rate", None),
        ("steps", 3.0),
        ("steps", True),
        ("steps", "3"),
        ("on", 1),
        ("on", "yes"),
        ("kind", "c"),
        ("kind", None),
        ("kind", ["a"]),
        ("maybe", "z"),
        ("revision", 5),
        ("path", None),
        ("path", 7),
        ("names", "q"),
        ("names", [1]),
        ("pair", [1]),
        ("pair", [1, 2, 3]),
        ("inner", "n"),
        ("inner", {"name": 1}),
    ],
)
def test_a_mistyped_value_is_refused_with_file_section_and_key(key: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^params.yaml: section 'some.part', key '{key}'"):
        read(GOOD | {key: value})


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_refused_and_the_known_keys_are_named(key: str) -> None:
    values = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(
        KeyError, match=rf"section 'some.part' lacks keys \['{key}'\]; known: \['inner', 'kind'"
    ):
        read(values)


@pytest.mark.parametrize("key", ["ratee", "Rate", 7, None])
def test_an_unknown_key_is_refused_and_the_known_keys_are_named(key: Any) -> None:
    with pytest.raises(
        KeyError, match=rf"section 'some.part' has unknown keys \['{key}'\]; known: \['inner'"
    ):
        read(GOOD | {key: 1})


def test_a_missing_section_is_refused_by_its_dotted_name() -> None:
    missing: list[dict[str, Any]] = [{}, {"some": {}}, {"some": None}, {"some": [1]}]
    for values in missing:
        with pytest.raises(KeyError, match="params.yaml: section 'some.part' is missing"):
            read_section(values, "some.part", Section)


@pytest.mark.parametrize(("text", "value"), [("1e-6", 1e-6), ("1.0e-5", 1e-5), ("2E+3", 2000.0)])
def test_numbers_in_scientific_notation_are_numbers(text: str, value: float, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"delta: {text}\n")
    assert read_params(tmp_path / "params.yaml") == {"delta": value}


@pytest.mark.parametrize("word", ["yes", "no", "on", "off"])
def test_a_bare_word_stays_text(word: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"answer: {word}\n")
    assert read_params(tmp_path / "params.yaml") == {"answer": word}


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1",
        b"a: 1\na: 2\n",
        b"\xff\xfe\xff",
        b"a: \x00",
        b"a: !!python/object:os.system {}",
        b"- 1\n",
        b"",
        b"a: b: c",
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ValueError, match="params.yaml (is not valid YAML|must be a mapping)") as refusal:
        read_params(tmp_path / "params.yaml")
    assert "\n" not in str(refusal.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="params.yaml is missing: run from the root of a dualpriv checkout"):
        read_params(tmp_path / "params.yaml")


def test_the_committed_params_can_be_read() -> None:
    assert {"data", "privacy"} <= set(read_params(Path(__file__).parents[3] / "params.yaml"))
