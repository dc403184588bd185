"""dvc.yaml says what the stage classes say; a stage is stale exactly when something that it runs changed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.dvc_graph import read_steps
from pipeline.dvcfile import FILE, render
from pipeline.graph import stage_classes
from pipeline.runner import Runner
from tests.pipeline.conftest import REPOSITORY, render_dvcfile


def test_the_committed_dvcfile_is_current() -> None:
    assert (REPOSITORY / FILE).read_text() == render(stage_classes(), REPOSITORY), "run `make dvc.yaml`"


def test_dependencies_are_the_files_a_stage_imports_and_its_inputs(small_pipeline: Path) -> None:
    stages = read_stages(small_pipeline)
    code = [name for name in stages["count"]["deps"] if name.endswith(".py")]
    assert (
        "stages/arithmetic/increment.py" in code
        and "stages/count.py" in code
        and "stages/core/contract.py" in code
    )
    assert "stages/arithmetic/increment.py" not in stages["start"]["deps"]
    assert "data/number.json" in stages["count"]["deps"]
    assert all((small_pipeline / name).is_file() for name in code)
    assert stages["account"]["outs"] == [{"data/account/statement.json": {"cache": False}}]
    assert stages["by_hand"]["frozen"] is True and stages["count"]["meta"] == {
        "approve": "spend",
        "retries": 1,
        "releases": True,
    }


def read_stages(checkout: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(checkout / "dvc.yaml")["stages"])


def stale(checkout: Path) -> set[str]:
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=checkout,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(answer.stdout))


def test_a_change_makes_stale_what_depends_on_it_and_leaves_the_rest(small_pipeline: Path) -> None:
    runner = Runner(small_pipeline)
    for step in read_steps(small_pipeline):
        runner.run(step)
    fresh = stale(small_pipeline)
    assert fresh <= {"by_hand"}, "a frozen stage has no record in dvc.lock until it is committed"
    cases = {
        "stages/arithmetic/increment.py": {"count"},
        "stages/start.py": {"start"},
        "stages/core/params.py": {"start", "count", "account"},
        "data/number.json": {"start", "count"},
    }
    for name, expected in cases.items():
        text = (small_pipeline / name).read_text()
        (small_pipeline / name).write_text(text + "\n# changed\n")
        assert stale(small_pipeline) - fresh == expected, name
        (small_pipeline / name).write_text(text)


def test_check_exits_1_when_the_file_is_stale(
    small_pipeline: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert render_dvcfile(small_pipeline, "--check") == 0
    module = small_pipeline / "stages/start.py"
    module.write_text(module.read_text() + "\nimport stages.arithmetic.increment\n")
    assert render_dvcfile(small_pipeline, "--check") == 1
    assert "dvc.yaml is stale: run" in capfd.readouterr().err
    assert render_dvcfile(small_pipeline) == 0
    assert "stages/arithmetic/increment.py" in read_stages(small_pipeline)["start"]["deps"]
