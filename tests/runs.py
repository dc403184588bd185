"""Start, kill and look at fine-tuning runs in a small checkout."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import LEDGER, dvc, edit_params, environment, run

from stages.ledger.ledger import Ledger
from stages.privacy.chain import Entry

ADAPTER = "models/adapter/adapter_model.safetensors"
INJECTOR = Path(__file__).parent / "injector"


def prepared(checkout: Path, *, steps: int) -> Path:
    """Plan other steps; everything else before finetune has run."""
    edit_params(checkout, {r"steps: 6": f"steps: {steps}", r"checkpoint_every: \d+": "checkpoint_every: 3"})
    if steps != 6:
        dvc(checkout, "repro", "--single-item", "plan")
    return checkout


def run_folder(checkout: Path, name: str = "finetune") -> Path | None:
    folders = [path for path in (checkout / "scratch" / name).glob("[0-9a-f]*") if len(path.name) == 32]
    return folders[0] if folders else None


def the_folder(checkout: Path, name: str = "finetune") -> Path:
    """Return the folder of the run of a stage, which must have begun."""
    folder = run_folder(checkout, name)
    assert folder is not None
    return folder


def steps_begun(checkout: Path) -> int:
    folder = run_folder(checkout)
    intents = folder / "intents.jsonl" if folder else None
    return max(0, intents.read_text().count("\n") - 1) if intents and intents.exists() else -1


def steps_traced(checkout: Path) -> list[int]:
    """Return the steps that the trace of a finished run names, in its order."""
    trace = json.loads((checkout / "data/finetune/trace.json").read_text())
    return [step["step"] for step in trace["steps"]]


def start(checkout: Path, *command: str, **more: str) -> subprocess.Popen:
    """Start a command; what it says on standard error goes to ``errors.txt``."""
    with open(checkout / "errors.txt", "wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", *(command or ("dvc", "repro", "finetune"))],
            cwd=checkout,
            env=environment(**more),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's is ignored
        )


def started(checkout: Path, moment: int, *command: str, **more: str) -> subprocess.Popen:
    """Start a command and return when it has begun step ``moment``, or has ended."""
    process = start(checkout, *command, **more)
    while process.poll() is None and steps_begun(checkout) < moment:
        time.sleep(0.002)
    return process


def kill_at(checkout: Path, moment: int, delay: float, *command: str) -> None:
    """Start finetune and SIGKILL its group ``delay`` seconds after it has begun step ``moment``."""
    process = started(checkout, moment, *command)
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def chain(checkout: Path) -> list[Entry]:
    """Return the ledger's entries about the population of a small checkout."""
    with contextlib.chdir(checkout), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALPRIV_LEDGER", LEDGER)
        return Ledger.load().entries("tiny")


def stage(checkout: Path, name: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one stage without DVC."""
    return run(checkout, sys.executable, "-m", f"stages.{name}", check=False, **more)


def injected(
    checkout: Path, name: str = "finetune", *, new_release: str = "0", **order: object
) -> subprocess.CompletedProcess[str]:
    """Run one stage without DVC, with an order for ``injector/sitecustomize.py``."""
    usual = {"at": 1, "path": "^" + re.escape(f"{checkout}/"), "calls": ["write", "fsync", "replace"]}
    log = {"log": str(checkout.with_name("calls.log"))}
    what = {"PYTHONPATH": str(INJECTOR), "INJECT": json.dumps({**usual, **log, **order})}
    return stage(checkout, name, DUALPRIV_NEW_RELEASE=new_release, **what)


def give_key(checkout: Path, key: bytes, folder: str, name: str = "finetune") -> None:
    """Let the run of a stage that will be called ``folder`` have this key."""
    place = checkout / "scratch" / name / folder
    place.mkdir(parents=True)
    (place / "run.key").write_bytes(key)


def undisturbed(checkout: Path, key: bytes, folder: str, **more: str) -> bytes:
    """Return the adapter of a run with the same key and inputs that nobody kills."""
    give_key(checkout, key, folder)
    done = stage(checkout, "finetune", **more)
    assert done.returncode == 0, done.stderr
    return (checkout / ADAPTER).read_bytes()
