"""The command ``dualpriv predict``: the fine-tuned model's answer to a question about an image."""

from dataclasses import asdict, replace
from pathlib import Path

from stages.core.files import read_json
from stages.core.params import PARAMS, read_params, read_section

BACKBONE = Path("models/backbone")
ADAPTER = Path("models/adapter")
PRUNING = Path("data/calibrate/pruning.json")


def predict_command(image: Path, question: str) -> None:
    """Print one answer of the model in the current checkout, which sees the image pruned as in training."""
    picture = read_picture(image)
    for folder in (BACKBONE, ADAPTER):
        if not folder.is_dir():
            raise ValueError(f"{folder} is missing: run `dvc repro` (or `dvc pull`) to make it")
    print(_answer(picture, question))


def read_picture(image: Path) -> bytes:
    """Return the bytes of an image file that decodes whole; anything else is a ValueError."""
    from stages.records.picture import check_picture
    from stages.records.refusal import quote

    name = f"image {quote(str(image))}"
    if not image.is_file():
        raise ValueError(f"{name} is not a file")
    try:
        content = image.read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    return check_picture(content, name)


def _answer(picture: bytes, question: str) -> str:
    from stages.core.speed import Speed, use
    from stages.evaluation.answer import answer
    from stages.trainable.adapters import load_adapter
    from stages.vlm.family import load
    from stages.vlm.selection import Rule, TokenSelection
    from stages.vlm.source import Model

    params = read_params()
    selection = read_section(params, "tokens", TokenSelection, PARAMS)
    precision = read_section(params, "model", Model, PARAMS).precision
    rule = Rule(**asdict(selection), **read_json(PRUNING)["chosen"])
    loaded = load(BACKBONE, device=use(Speed.load()).device, precision=precision)
    return answer(
        replace(loaded, model=load_adapter(loaded.model, ADAPTER, loaded.family)), picture, question, rule
    )
