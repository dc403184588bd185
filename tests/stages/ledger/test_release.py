"""What dvc.lock says of an output."""

from pathlib import Path

from ruamel.yaml import YAML

from stages.ledger.release import recorded_digest, recorded_output

TRACE = Path("data/finetune/trace.json")


def test_an_output_is_found_by_stage_and_path_and_what_was_never_recorded_is_none(tmp_path):
    lock = tmp_path / "dvc.lock"
    assert recorded_digest("finetune", TRACE, lock) is None
    out = {"path": TRACE.as_posix(), "md5": "0" * 32, "size": 3}
    YAML().dump({"stages": {"finetune": {"outs": [out]}, "plan": {}}}, lock)
    assert recorded_output("finetune", TRACE, lock) == out
    assert recorded_digest("finetune", TRACE, lock) == "0" * 32
    assert recorded_digest("finetune", Path("models/adapter"), lock) is None
    assert recorded_digest("plan", TRACE, lock) is recorded_digest("encode", TRACE, lock) is None
