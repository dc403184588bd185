"""The command ``dualpriv preflight``: is the DP engine exact on this model?"""

import json
import sys
from pathlib import Path
from typing import Any


def preflight_command(model: Path, records: Path | None, train: str, *, as_json: bool) -> int:
    """Print the report; returns 0 when the engine may be trusted with the model, else 1."""
    found = report(model, records, train)
    if as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
        return 0 if found["verdict"] == "pass" else 1
    for reason in found["reasons"]:
        print(f"FAIL  {reason}", file=sys.stderr)
    for key in ("family", "units", "max_relative_error", "max_contribution_over_clip", "neighbour_drift"):
        print(f"{key.replace('_', ' ')}: {'not measured' if found[key] is None else found[key]}")
    print(f"verdict: {found['verdict']}")
    return 0 if found["verdict"] == "pass" else 1


def report(model: Path, records: Path | None, train: str) -> dict[str, Any]:
    """Return the report on a model directory, on synthetic rows or on those of a record set."""
    from stages.privacy.preflight import preflight
    from stages.trainable.parts import parse_parts, train_parts
    from stages.vlm.subject import load_whole, recorded_subject, synthetic_subject

    parts = parse_parts(train)
    loaded = load_whole(model)
    family = loaded.config.model_type
    trained = train_parts(loaded, parts)
    subject = synthetic_subject(trained) if records is None else recorded_subject(trained, model, records)
    return {"family": family, **preflight(subject).to_json()}
