"""The Kubernetes job that a worker would make of our base job template."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import ValidationError, is_valid, validate
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

TEMPLATE = json.loads((Path(__file__).parents[2] / "cluster/kubernetes.json").read_text())
GIVEN = {"image": "registry.example/dualpriv@sha256:0", "state_claim": "dualpriv-state", "secret": "dualpriv"}


def job(**more: Any) -> dict[str, Any]:
    """Return the manifest for some variables."""
    nobody: Any = object()  # a client would be asked for blocks and variables, of which there are none
    rendering = KubernetesWorkerJobConfiguration.from_template_and_values(
        TEMPLATE, {**GIVEN, **more}, client=nobody
    )
    made: KubernetesWorkerJobConfiguration = asyncio.run(rendering)
    return made.job_manifest


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    [found] = manifest["spec"]["template"]["spec"]["containers"]
    return found


def test_a_job_has_its_gpus_its_volume_and_its_secret() -> None:
    manifest = job(gpus=8, env={"DUALPRIV_PRESET": "llava-1.5-7b-8xa100"}, node_selector={"gpu": "a100"})
    pod, own = manifest["spec"]["template"]["spec"], container(manifest)
    assert own["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert own["image"] == GIVEN["image"] and own["env"] == {"DUALPRIV_PRESET": "llava-1.5-7b-8xa100"}
    assert own["envFrom"] == [{"secretRef": {"name": "dualpriv"}}]
    assert {"name": "state", "mountPath": "/state"} in own["volumeMounts"]
    claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if volume["name"] == "state"]
    assert claims == [{"claimName": "dualpriv-state"}]
    assert pod["nodeSelector"] == {"gpu": "a100"} and pod["restartPolicy"] == "Never"
    assert manifest["spec"]["backoffLimit"] == 0, "Prefect tries again, not Kubernetes"
    assert "{{" not in json.dumps(manifest)


def test_one_gpu_and_a_time_to_save_are_the_default() -> None:
    manifest = job()
    assert container(manifest)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


@pytest.mark.parametrize(
    "wrong", [{"gpu": 1}, {"gpus": "eight"}, {"gpus": -1}, {"run_key": "00"}, {"env": {"A": 1}}]
)
def test_an_unknown_or_mistyped_variable_is_refused(wrong: dict[str, Any]) -> None:
    schema = TEMPLATE["variables"]
    assert is_valid(GIVEN, schema)
    with pytest.raises(ValidationError):
        validate({**GIVEN, **wrong}, schema, raise_on_error=True)


@pytest.mark.parametrize("missing", list(GIVEN))
def test_what_only_the_operator_knows_is_required(missing: str) -> None:
    given = {key: value for key, value in GIVEN.items() if key != missing}
    assert not is_valid(given, TEMPLATE["variables"])
