"""Stage backbone refuses what it cannot bring by the user's own name for it, and leaves nothing behind."""

from dataclasses import replace
from pathlib import Path

import pytest

from stages.backbone import Backbone


def test_an_unsupported_model_is_refused_by_the_users_name_for_it(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / "config.json").write_text('{"model_type": "bert"}')
    (source / "model.safetensors").write_bytes(b"weights")
    stage = Backbone.load()
    stage = replace(stage, model=replace(stage.model, path=source), backbone=tmp_path / "models/backbone")
    with pytest.raises(ValueError) as refused:
        stage.run()
    assert str(refused.value).startswith(f"{source} is a model of type 'bert', which is not supported")
    assert list((tmp_path / "models").iterdir()) == []
