"""Commands on the fine-tuned model itself: ask it, hand it on."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    image: Annotated[
        Path | None, typer.Option("--image", help="An image file, or a folder: every image below it.")
    ] = None,
    question: Annotated[str | None, typer.Option("--question", help="What to ask about each.")] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            "--jsonl", help="Lines of {image, question}, or of OpenAI's chat format; --image for the rest."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A JSONL file for the answers; left out: the terminal.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Answers at once; left out: speed.micro_batch.")
    ] = None,
) -> None:
    """Print the fine-tuned model's answers to questions about images, which it sees as in training.

    For example: dualpriv predict --image photos --question "which digit is this ?" --out answers.jsonl
    """
    from pipeline.predict import Request, predict_command

    predict_command(Request(image=image, question=question, jsonl=jsonl, out=out, batch=batch))


def export(
    to: Annotated[Path, typer.Option("--to", help="A new directory.")],
) -> None:
    """Write the fine-tuned model as a directory that loads without this project, with card and statement.

    For example: dualpriv export --to handed-on
    """
    from pipeline.export import export_command

    export_command(to)
