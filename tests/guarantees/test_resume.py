"""A run killed and resumed ends with the bits of one that was not; its key is found nowhere."""

import base64
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from checkout import dvc, edit_params, environment, run

from stages.training.intents import read_begun

ADAPTER = "models/adapter/adapter_model.safetensors"


def prepared(checkout: Path, *, steps: int) -> Path:
    """Plan other steps; everything else before finetune has run."""
    edit_params(checkout, {r"steps: 6": f"steps: {steps}", r"checkpoint_every: \d+": "checkpoint_every: 3"})
    if steps != 6:
        dvc(checkout, "repro", "--single-item", "plan")
    return checkout


def run_folder(checkout: Path) -> Path | None:
    folders = [path for path in (checkout / "scratch/finetune").glob("[0-9a-f]*") if len(path.name) == 32]
    return folders[0] if folders else None


def steps_begun(checkout: Path) -> int:
    folder = run_folder(checkout)
    intents = folder / "intents.jsonl" if folder else None
    return max(0, intents.read_text().count("\n") - 1) if intents and intents.exists() else -1


def start(checkout: Path, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *(command or ("dvc", "repro", "finetune"))],
        cwd=checkout,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_at(checkout: Path, moment: int, delay: float, *command: str) -> None:
    """Start finetune and SIGKILL its group ``delay`` seconds after it has begun step ``moment``."""
    process = start(checkout, *command)
    while process.poll() is None and steps_begun(checkout) < moment:
        time.sleep(0.002)
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def undisturbed(checkout: Path, key: bytes, folder: str) -> bytes:
    """Return the adapter of a run with the same key and inputs that nobody kills."""
    place = checkout / "scratch/finetune" / folder
    place.mkdir(parents=True)
    (place / "run.key").write_bytes(key)
    dvc(checkout, "repro", "finetune")
    return (checkout / ADAPTER).read_bytes()


def killed_and_resumed(checkout: Path, moments: list[tuple[int, float]]) -> tuple[bytes, dict, bytes, str]:
    for moment, delay in moments:
        kill_at(checkout, moment, delay)
    key_folder = run_folder(checkout)
    assert key_folder is not None
    key = (key_folder / "run.key").read_bytes()
    dvc(checkout, "repro", "finetune")
    trace = json.loads((checkout / "data/finetune/trace.json").read_text())
    return (checkout / ADAPTER).read_bytes(), trace, key, key_folder.name


def compare(encoded: Path, tmp_path: Path, moments: list[tuple[int, float]], steps: int) -> dict:
    checkout = prepared(encoded, steps=steps)
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    adapter, trace, key, folder = killed_and_resumed(checkout, moments)
    assert [step["step"] for step in trace["steps"]] == list(range(steps)), "no step is missing or twice"
    assert adapter == undisturbed(twin, key, folder)
    return trace


def test_killed_at_three_moments_and_resumed_gives_the_same_bits(encoded_checkout, tmp_path):
    trace = compare(encoded_checkout, tmp_path, [(1, 0.0), (5, 0.01), (8, 0.05)], steps=12)
    assert not any("attempts" in step for step in trace["steps"]), "why a step began again may be private"
    folder = run_folder(encoded_checkout)
    assert folder is not None
    assert max(step.attempts for step in read_begun(folder / "intents.jsonl")) > 1, "some step ran again"


def test_another_key_gives_other_bits(encoded_checkout, tmp_path):
    """Negative control: the comparison above is not between runs that are equal anyway."""
    checkout = prepared(encoded_checkout, steps=6)
    twin = Path(shutil.copytree(checkout, tmp_path / "twin", symlinks=True))
    dvc(checkout, "repro", "finetune")
    folder = run_folder(checkout)
    assert folder is not None
    assert undisturbed(twin, bytes(32), folder.name) != (checkout / ADAPTER).read_bytes()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_resumed_gives_the_same_bits(encoded_checkout, tmp_path):
    dice = random.Random(os.urandom(8))
    moments = sorted((dice.randrange(-1, 38), dice.random() * 0.1) for _ in range(20))
    print("moments", moments)
    compare(encoded_checkout, tmp_path, moments, steps=40)


def spellings(key: bytes) -> dict[str, bytes]:
    return {
        "raw": key,
        "hex": key.hex().encode(),
        "HEX": key.hex().upper().encode(),
        "base64": base64.b64encode(key).rstrip(b"="),
        "base64url": base64.urlsafe_b64encode(key).rstrip(b"="),
        "decimal": str(int.from_bytes(key, "big")).encode(),
        "little-endian decimal": str(int.from_bytes(key, "little")).encode(),
    }


def contents(path: Path):
    """Yield a file as it is, uncompressed (Git objects, gzip), and the cells of a SQLite database."""
    content = path.read_bytes()
    yield content
    for bits in (zlib.MAX_WBITS, zlib.MAX_WBITS | 16):
        try:
            yield zlib.decompressobj(bits).decompress(content)
        except zlib.error:
            pass
    if content.startswith(b"SQLite format 3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for (table,) in database.execute(
                "select name from sqlite_master where type = 'table'"
            ).fetchall():
                for row in database.execute(f'select * from "{table}"'):
                    for cell in row:
                        yield cell if isinstance(cell, bytes) else str(cell).encode()


def found_in(root: Path, key: bytes) -> list[str]:
    wanted = spellings(key)
    return [
        f"{path.relative_to(root)}: {name}"
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and "scratch" not in path.relative_to(root).parts
        for content in contents(path)
        for name, text in wanted.items()
        if text in content
    ]


def test_the_run_key_is_found_nowhere_and_a_planted_one_is(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    log = run(checkout, sys.executable, "-m", "dvc", "repro", "finetune", "--verbose")
    (checkout / "run.log").write_text(log.stdout + log.stderr)
    folder = run_folder(checkout)
    assert folder is not None
    key = (folder / "run.key").read_bytes()
    dvc(checkout, "repro")
    run(checkout, "git", "add", "--all")
    run(
        checkout,
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "commit",
        "--quiet",
        "--message",
        "evidence",
    )
    assert not folder.exists(), "destroyed once the output was recorded"
    assert found_in(checkout, key) == []
    for name, text in spellings(key).items():
        (checkout / "planted").write_bytes(b"before" + text + b"after")
        assert f"planted: {name}" in found_in(checkout, key)
    (checkout / "planted").write_bytes(zlib.compress(b"x" + key))
    assert set(found_in(checkout, key)) == {"planted: raw"}  # zlib may store so short a text as it is
    (checkout / "planted").unlink()
    with sqlite3.connect(checkout / "planted.db") as database:
        database.execute("create table log (line text)")
        database.execute("insert into log values (?)", (f"key {key.hex()}",))
    assert "planted.db: hex" in found_in(checkout, key)


def training_charges(checkout: Path) -> list[dict]:
    charges = json.loads((checkout / "data/account/charges.json").read_text())["charges"]
    return [charge for charge in charges if charge["stage"] == "finetune"]


def test_a_forced_rerun_is_a_fresh_release(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    dvc(checkout, "repro", "account")
    first = json.loads((checkout / "data/finetune/trace.json").read_text())
    dvc(checkout, "repro", "--force", "--single-item", "finetune")
    second = json.loads((checkout / "data/finetune/trace.json").read_text())
    assert first["fingerprint"] == second["fingerprint"]
    assert first["release"] != second["release"]
    assert first["adapter"]["adapter_model.safetensors"] != second["adapter"]["adapter_model.safetensors"]


def test_a_finished_run_that_no_statement_covers_is_charged_with_the_next(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=6)
    dvc(checkout, "repro", "finetune")
    dvc(checkout, "repro", "--force", "--single-item", "finetune")
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    dvc(checkout, "repro", "account")
    charges = training_charges(checkout)
    assert [charge["event"]["count"] for charge in charges] == [6, 6, 6]
    assert len({charge["release"] for charge in charges}) == 3
    dvc(checkout, "repro", "--force", "--single-item", "account")
    assert training_charges(checkout) == charges
    kept = sorted(path.name for path in (checkout / "scratch/finetune/retired").iterdir())
    assert kept == sorted(charge["release"] for charge in charges)
    assert [path for path in (checkout / "scratch/finetune").rglob("*") if path.suffix == ".key"] == []


def test_an_abandoned_run_is_charged_for_every_step_it_began(encoded_checkout):
    checkout = prepared(encoded_checkout, steps=12)
    kill_at(checkout, 4, 0.0)
    begun = steps_begun(checkout)
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    dvc(checkout, "repro", "account")
    assert [charge["event"]["count"] for charge in training_charges(checkout)] == [12, begun]
    statement = json.loads((checkout / "data/account/statement.json").read_text())
    plan = json.loads((checkout / "data/plan.json").read_text())
    assert statement["epsilon"] > plan["epsilon"]


def stage(checkout: Path, name: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one stage without DVC."""
    return run(checkout, sys.executable, "-m", f"stages.{name}", check=False, **more)


def not_public(checkout: Path) -> Path:
    """Plan for people who are not public, on what was encoded."""
    plan = checkout / "data/plan.json"
    content = json.loads(plan.read_text())
    content["population"]["public"] = False
    plan.unlink()  # a link into DVC's cache
    plan.write_text(json.dumps(content))
    return checkout


def test_people_who_are_not_public_are_released_once_unless_a_new_release_is_meant(encoded_checkout):
    checkout = not_public(encoded_checkout)
    for name in ("finetune", "account"):
        done = stage(checkout, name)
        assert done.returncode == 0, done.stderr
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    refused = stage(checkout, "finetune")
    assert refused.returncode == 2
    assert "already released on this machine" in refused.stderr and "--new-release" in refused.stderr
    again = stage(checkout, "finetune", DUALPRIV_NEW_RELEASE="1")
    assert again.returncode == 0, again.stderr


def test_a_killed_run_goes_on_and_another_that_could_not_be_released_is_refused_before_its_first_step(
    encoded_checkout,
):
    checkout = not_public(encoded_checkout)
    kill_at(checkout, 2, 0.0, "stages.finetune")
    begun = steps_begun(checkout)
    assert begun >= 2
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.9"})
    refused = stage(checkout, "finetune")
    assert refused.returncode == 2 and "over the target" in refused.stderr
    assert steps_begun(checkout) == begun and len(list((checkout / "scratch/finetune").glob("*/"))) == 1
    edit_params(checkout, {r"beta2: \S+": "beta2: 0.99"})
    for name in ("finetune", "account"):
        done = stage(checkout, name)
        assert done.returncode == 0, done.stderr
    assert [charge["event"]["count"] for charge in training_charges(checkout)] == [6]


def test_half_precision_is_refused_for_people_who_are_not_public(encoded_checkout):
    checkout = not_public(encoded_checkout)
    edit_params(checkout, {"precision: float32": "precision: bfloat16"})
    refused = stage(checkout, "finetune")
    assert refused.returncode == 2 and "set model.precision to float32" in refused.stderr
    assert steps_begun(checkout) == -1
