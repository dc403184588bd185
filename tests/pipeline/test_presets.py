"""Presets name keys that exist, need what they say, and their plans can be solved, without weights."""

import json
import shutil
from pathlib import Path

import pytest
from commands import Command, commands

from pipeline.presets import read_preset
from pipeline.use import merged
from stages.core.params import read_params, read_section
from stages.plan import MakePlan
from stages.privacy.population import Population
from stages.privacy.priced_precision import require_priced_precision
from stages.training.gpu import gpu_of
from stages.training.memory_methods import MemorySettings, methods_of
from stages.training.memory_plan import MARGIN, MemoryPlan, as_many
from stages.training.synthetic_rows import Shape

ROOT = Path(__file__).parents[2]
GIB = 2**30
NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml") if path.stem != "compare")


@pytest.fixture
def dualpriv(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Return the command line in a folder with params.yaml and presets."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return commands(capsys, monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_needs_what_it_says(name: str, dualpriv: Command) -> None:
    assert dualpriv("use", name)[0] == 0
    preset, params = read_preset(name), read_params()
    settings, rows = MemorySettings.of(params), preset.rows
    method = next(iter(methods_of(settings, preset.gpus, False, False).values()))
    shape = Shape(rows.text_tokens, rows.answer_tokens, rows.visual_tokens)
    with as_many(preset.gpus):
        plan = MemoryPlan.of(preset.config.parent, settings.model.precision, method, shape)
        need = plan.need(preset.predicted.micro_batch)
    assert need.total / GIB == pytest.approx(preset.predicted.peak_gib, abs=0.06)
    assert need.total <= gpu_of(preset.gpu).limit(MARGIN)
    assert params["speed"]["micro_batch"] == preset.predicted.micro_batch
    assert params["speed"]["micro_batch_tokens"] == preset.predicted.micro_batch * plan.tokens_of_row
    assert (params["speed"]["processes"], params["speed"]["shard_base"]) == (preset.gpus, preset.gpus > 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_of_a_preset_is_solved_from_its_config_alone(
    name: str, dualpriv: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dualpriv("use", name)
    text = (tmp_path / "params.yaml").read_text()
    text = text.replace("max_units: 6000", "max_units: 60000")
    (tmp_path / "params.yaml").write_text(text)
    charge = json.dumps({"charge": {"release": None}})
    for file in ("profile", "pruning"):
        (tmp_path / f"{file}.json").write_text(charge)
    fields = {
        section: read_section(read_params(), section, schema)
        for section, schema in MakePlan.__annotations__.items()
        if section in read_params()
    }
    stage = MakePlan(
        **fields,
        importance=tmp_path / "profile.json",
        pruning=tmp_path / "pruning.json",
        backbone=read_preset(name).config.parent,
        plan=tmp_path / "plan.json",
    )
    stage.run()
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert 0 < plan["noise_multiplier"] and plan["epsilon"] <= 8.0


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_may_train_people_who_are_not_public(name: str) -> None:
    people = Population(name="patients", public=False, max_units=60_000, unit="patient")
    require_priced_precision(read_preset(name).params["model"]["precision"], people)
    with pytest.raises(ValueError, match="nothing prices yet"):
        require_priced_precision("bfloat16", people)


def test_use_changes_values_and_leaves_comments(dualpriv: Command, tmp_path: Path) -> None:
    before = (tmp_path / "params.yaml").read_text()
    status, said, _ = dualpriv("use", "llava-1.5-7b-1xa100", "--dry-run")
    assert status == 0 and "-  rank: 4 " in said and "+  rank: 16 " in said
    assert (tmp_path / "params.yaml").read_text() == before
    assert dualpriv("use", "llava-1.5-7b-1xa100")[0] == 0
    after = (tmp_path / "params.yaml").read_text()
    wanted = read_preset("llava-1.5-7b-1xa100").params
    assert all(
        read_params()[section][key] == value for section in wanted for key, value in wanted[section].items()
    )
    comments = [line.partition("#")[2].strip() for line in before.splitlines() if "#" in line]
    assert [line.partition("#")[2].strip() for line in after.splitlines() if "#" in line] == comments
    status, said, _ = dualpriv("use", "llava-1.5-7b-1xa100")
    assert (status, said) == (0, "params.yaml says what llava-1.5-7b-1xa100 says already\n")
    assert merged(before, {}, "nothing") == before, "a file that nothing is set in stays to the letter"


@pytest.mark.parametrize(
    ("preset", "told"),
    [
        ("llava-7", "there is no preset 'llava-7'; there are: broken, llava-1.5-7b-1xa100"),
        ("broken", "presets/broken.yaml is not valid YAML"),
        ("other", "presets/other.yaml lacks keys"),
        ("unknown", "preset 'unknown' sets 'optim.speed', which params.yaml does not have"),
    ],
)
def test_a_preset_that_cannot_be_used_is_one_sentence_and_changes_nothing(
    preset: str, told: str, dualpriv: Command, tmp_path: Path
) -> None:
    whole = (tmp_path / "presets/llava-1.5-7b-1xa100.yaml").read_text()
    (tmp_path / "presets/broken.yaml").write_text("a: [")
    (tmp_path / "presets/other.yaml").write_text("about: nothing")
    (tmp_path / "presets/unknown.yaml").write_text(whole.replace("    average: 0.95", "    speed: 1.0"))
    before = (tmp_path / "params.yaml").read_text()
    status, said, error = dualpriv("use", preset)
    assert (status, said) == (2, "") and error.startswith("dualpriv: ") and told in error
    assert (tmp_path / "params.yaml").read_text() == before
