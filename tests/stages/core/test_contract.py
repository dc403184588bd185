"""The fields of a stage are its contract: what they declare is what it gets."""

from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Literal

import pytest

from stages.core.contract import Stage, reads, reads_from, section, writes

PARAMS = """\
update:
  keep: 0.5
privacy:
  target:
    keep: 1.0
  relation: one
data:
  path: some/where
  set: train
"""


@dataclass(frozen=True, kw_only=True)
class Update:
    """A section."""

    keep: float


@dataclass(frozen=True, kw_only=True)
class Example(Stage):
    """A stage with a field of every role."""

    update: Update
    target: Update = section("privacy.target")
    relation: Literal["one", "other"] = section("privacy.relation")
    plan: Path = reads("data/plan.json")
    given: Path = reads_from("data.path")
    chosen: Path = reads_from("data.set", below="data/records")
    out: Path = writes("data/out")
    proof: Path = writes("data/proof.json", evidence=True, plot={"x": "step"})


def load(tmp_path: Path, text: str) -> Example:
    """Load the example stage from ``text``."""
    (tmp_path / "params.yaml").write_text(text)
    return Example.load(tmp_path / "params.yaml")


def test_every_field_is_a_port_of_its_role() -> None:
    ports = {port.name: port for port in Example.ports()}
    assert {name: port.role for name, port in ports.items()} == {
        "update": "section",
        "target": "section",
        "relation": "section",
        "plan": "reads",
        "given": "reads_from",
        "chosen": "reads_from",
        "out": "writes",
        "proof": "writes",
    }
    assert (ports["update"].key, ports["target"].key, ports["given"].key) == (
        "update",
        "privacy.target",
        "data.path",
    )
    assert (ports["plan"].path, ports["out"].path, ports["given"].path) == (
        Path("data/plan.json"),
        Path("data/out"),
        None,
    )
    assert (ports["chosen"].key, ports["chosen"].path) == ("data.set", Path("data/records"))
    assert (ports["out"].evidence, ports["proof"].evidence) == (False, True)
    assert ports["proof"].plot == {"x": "step"}
    assert ports["update"].schema is Update


def test_a_stage_is_loaded_with_sections_and_the_paths_that_params_own(tmp_path: Path) -> None:
    stage = load(tmp_path, PARAMS)
    assert (stage.update.keep, stage.target.keep) == (0.5, 1.0)
    assert (stage.relation, stage.chosen) == ("one", Path("data/records/train"))
    assert (stage.given, stage.plan) == (Path("some/where"), Path("data/plan.json"))
    with pytest.raises(FrozenInstanceError):
        stage.plan = Path("elsewhere")  # type: ignore[misc]


def test_one_value_of_a_section_is_checked_as_a_whole_section_is(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"key 'privacy.relation' must be one of \['one', 'other'\], got 'two'"
    ):
        load(tmp_path, PARAMS.replace("relation: one", "relation: two"))


def test_a_missing_section_or_path_is_refused_by_its_dotted_name(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="section 'privacy.target' is missing"):
        load(tmp_path, PARAMS.replace("target", "goal"))
    with pytest.raises(KeyError, match="key 'data.path' is missing"):
        load(tmp_path, PARAMS.replace("path", "place"))


@pytest.mark.parametrize("value", ["null", "", "7", "[a]", '""'])
def test_a_path_that_is_no_text_is_refused_by_its_dotted_name(value: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="key 'data.path' must be a path"):
        load(tmp_path, PARAMS.replace("some/where", value))


def test_a_stage_is_named_after_its_module() -> None:
    assert Example.name() == "test_contract"
