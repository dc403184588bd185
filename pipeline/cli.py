"""The command ``dualpriv``.

Each subcommand lives in a module of its own, imported when it is called, so that help is quick.

A mistake of the user's ends in one sentence on standard error and exit code 2, without a traceback.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from pipeline.budget.cli import budget
from pipeline.keys_cli import keys
from pipeline.ledger_cli import ledger
from pipeline.model_cli import export, predict
from pipeline.own_data.cli import init
from pipeline.presets import GRID
from stages.core.entry import INTERRUPTED, is_ours, refuse

app = typer.Typer(
    name="dualpriv",
    help="Fine-tune a vision-language model under differential privacy, and show what privacy was spent.",
    epilog="Exit codes: 0 done; 1 failed or not passed; 2 a mistake in call or files, told in one sentence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command(epilog="Example: dualpriv repro report")
def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Stages to bring up to date, with all upstream.")
    ] = None,
    new_release: Annotated[
        bool,
        typer.Option(
            "--new-release", help="Abandon stopped runs that stand in the way; release named targets again."
        ),
    ] = False,
) -> None:
    """Bring the pipeline up to date, as `dvc repro` does, one stage after the other."""
    from pipeline.repro import repro_command

    repro_command(tuple(targets or ()), new_release=new_release)


@app.command(epilog="Example: dualpriv show")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Print the results table and the privacy statement."""
    from pipeline.show import show_command

    show_command(as_json=as_json)


@app.command(epilog="Example: dualpriv audit --all-revs")
def audit(
    require_weights: Annotated[
        bool,
        typer.Option(
            "--require-weights", help="Fail when the weights of the release are not here to be checked."
        ),
    ] = False,
    revision: Annotated[
        str | None, typer.Option("--rev", help="A commit, branch or tag to audit instead of the checkout.")
    ] = None,
    all_revisions: Annotated[
        bool,
        typer.Option("--all-revs", help="Add up every release that any commit or DVC experiment shows."),
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key", envvar="DUALPRIV_PUBLIC_KEY", help="The key that must have signed the statement."
        ),
    ] = None,
    latest: Annotated[
        Path | None,
        typer.Option("--latest", help="A signed statement that you hold, which this one has to extend."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Recompute the privacy spent from stored evidence; exit 0 if it holds, 1 if not, 2 if it is missing."""
    from pipeline.audit import audit_command

    raise typer.Exit(
        audit_command(
            revision=revision,
            history=all_revisions,
            require_weights=require_weights,
            public=public_key,
            latest=latest,
            as_json=as_json,
        )
    )


@app.command(epilog='Example: dualpriv approve brave-newt --by "Ada Lovelace" --reason "agreed on 12 May"')
def approve(
    run: Annotated[str, typer.Argument(help="The flow run that waits: its name or id.")],
    by: Annotated[str | None, typer.Option("--by", help="Who answers; kept in the ledger.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept in the ledger.")] = None,
    deny: Annotated[bool, typer.Option("--deny", help="Say no: the run ends.")] = False,
) -> None:
    """Show what a flow run that waits would spend; with --by and --reason, answer it."""
    from pipeline.approve import approve_command

    approve_command(run, by, reason, approve=not deny)


@app.command(epilog="Example: dualpriv preflight --model models/backbone")
def preflight(
    model: Annotated[Path, typer.Option("--model", help="A Hugging Face model directory.")],
    records: Annotated[
        Path | None, typer.Option("--records", help="A record set; left out: synthetic rows.")
    ] = None,
    train: Annotated[str, typer.Option("--train", help="What learns: lm, projector, vision.")] = "lm",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare the DP engine with plain autograd on a model; exit 0 only when it is exact."""
    from pipeline.preflight import preflight_command

    raise typer.Exit(preflight_command(model, records, train, as_json=as_json))


@app.command(epilog="Example: dualpriv memory --preset llava-1.5-7b-1xa100")
def memory(
    preset: Annotated[
        str | None, typer.Option("--preset", help="One of presets/: its model, GPUs and parameters.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="A Hugging Face directory, or a config.json alone.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu", help="a100-80gb, a100-40gb, h100-80gb, h20-96gb, or a file that describes one."
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="So many share the frozen base (speed.shard_base).")
    ] = None,
    visual_tokens: Annotated[int | None, typer.Option("--visual-tokens", help="Of a long row.")] = None,
    text_tokens: Annotated[
        int | None, typer.Option("--text-tokens", help="Of a long row, its answer included.")
    ] = None,
    answer_tokens: Annotated[int | None, typer.Option("--answer-tokens", help="Of these, learned.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Rows at once for which the peak is told.")] = 4,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Share of the GPU that stays free; left out: a tenth.")
    ] = None,
    every_method: Annotated[
        bool, typer.Option("--every-method", help="Beside that of params.yaml, every other one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Predict a training step's memory and its largest micro-batch, without a GPU and without weights."""
    from pipeline.memory import Asked, memory_command

    asked = Asked(
        preset=preset,
        model=model,
        gpu=gpu,
        gpus=gpus,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        answer_tokens=answer_tokens,
        batch=batch,
        margin=margin,
        every_method=every_method,
    )
    raise typer.Exit(memory_command(asked, as_json=as_json))


@app.command(epilog="Example: dualpriv use llava-1.5-7b-1xa100 --dry-run")
def use(
    preset: Annotated[str, typer.Argument(help="One of presets/.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference and change nothing.")
    ] = False,
) -> None:
    """Put a preset's values into params.yaml, whose comments stay, and show what changed."""
    from pipeline.use import use_command

    use_command(preset, dry_run=dry_run)


@app.command(epilog="Example: dualpriv compare --quick")
def compare(
    quick: Annotated[
        bool, typer.Option("--quick", help="A small part of the grid: some minutes on two cores.")
    ] = False,
    grid: Annotated[Path, typer.Option("--grid", help="What to compare.")] = GRID,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="A folder for tables and charts; left out: benchmarks/compare, with another grid's name and "
            "-quick behind it.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at once, which share the cores.")] = 3,
) -> None:
    """Run every method under one accountant on public records, and write tables and charts."""
    from pipeline.compare.command import compare_command

    name = "compare" + f"-{grid.stem}" * (grid.resolve() != GRID.resolve()) + "-quick" * quick
    compare_command(grid, out or Path("benchmarks", name), quick=quick, jobs=jobs)


@app.command(epilog="Example: dualpriv sweep sweep.yaml --jobs 2")
def sweep(
    grid: Annotated[Path, typer.Argument(help="A file: `grid:`, and lists of values by key of params.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Where the table goes, as CSV.")] = Path("sweep.csv"),
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at once.")] = 2,
    spend: Annotated[
        bool, typer.Option("--spend", help="Also on people who are not public: every point is charged.")
    ] = False,
) -> None:
    """Run every combination of values as a DVC experiment, under one ledger, and write one table."""
    from pipeline.sweep.command import sweep_command

    sweep_command(grid, out, jobs=jobs, spend=spend)


@app.command(epilog="Example: dualpriv unseal-key RELEASE --private-key archive.pem --to run.key")
def unseal_key(
    release: Annotated[str, typer.Argument(help="The 32 hex digits that name the release.")],
    private_key: Annotated[
        Path, typer.Option("--private-key", help="The PEM file of the archive's X25519 private key.")
    ],
    to: Annotated[Path, typer.Option("--to", help="A new file, for the 32 bytes of the run key.")],
) -> None:
    """Open the archived run key of a release; whoever holds it can subtract the noise."""
    from pipeline.unseal import unseal_command

    unseal_command(release, private_key, to)


app.command(epilog='Example: dualpriv predict --image photo.png --question "which digit is this ?"')(predict)
app.command(epilog="Example: dualpriv export --to ~/tuned")(export)
app.command(epilog="Example: dualpriv budget --batch 250:2000 --steps 40,80 --epsilon 4")(budget)
app.command(epilog="Example: dualpriv init --data ~/scans --model ~/models/llava --unit patient")(init)
app.add_typer(ledger, name="ledger")
app.add_typer(keys, name="keys")


def main() -> None:
    """Run the command line; exits with 0, with 1 for a failure, 2 for a mistake, 130 after Ctrl-C."""
    try:
        found = app(prog_name="dualpriv", standalone_mode=False)
    except (ValueError, KeyError, TypeError) as error:
        if not is_ours(error):
            raise
        refuse("dualpriv", error)
    except OSError as error:
        if error.filename is None:
            raise
        refuse("dualpriv", f"{error.filename}: {error.strerror}")
    except typer.Abort:
        refuse("dualpriv", "a question had no answer, so nothing was changed")
    except TyperException as error:
        refuse_call(error)
    if found == INTERRUPTED:
        told = "interrupted; nothing is half written, and the same command goes on from what is finished"
        print(f"dualpriv: {told}", file=sys.stderr)
    sys.exit(found if isinstance(found, int) else 0)


def refuse_call(error: Any) -> NoReturn:
    """Tell a wrong call in one sentence; a group of commands that was called alone has shown its help."""
    if not error.format_message():
        sys.exit(2)
    path = "dualpriv" if error.ctx is None else error.ctx.command_path
    refuse(path, f"{error.format_message().rstrip('.')}: `{path} --help` says what there is")


if __name__ == "__main__":
    main()
