"""The operator's page says what is so."""

import re

from ruamel.yaml import YAML

from benchmarks.deployment_faults import PAGE, with_table
from stages.core.files import read_json
from tests.pipeline.conftest import REPOSITORY

TEXT = (REPOSITORY / PAGE).read_text()
DEPLOYED = YAML(typ="safe", pure=True).load(REPOSITORY / "prefect.yaml")["deployments"]


def test_the_table_of_faults_is_the_one_that_was_measured() -> None:
    assert with_table(TEXT, read_json(REPOSITORY / "benchmarks/deployment_faults.json")) == TEXT


def test_every_deployment_is_told_and_no_other() -> None:
    assert set(re.findall(r"finetune/([a-z0-9-]+)", TEXT)) == {entry["name"] for entry in DEPLOYED}


def test_presets_and_files_that_are_named_are_there() -> None:
    for preset in re.findall(r"DUALPRIV_PRESET=(\S+)", TEXT):
        assert (REPOSITORY / f"presets/{preset}.yaml").exists()
    for path in re.findall(r"`((?:cluster|tests|benchmarks)/[\w./-]+)`", TEXT):
        assert (REPOSITORY / path).exists(), path
