"""What the orchestration of a stage costs: ``python -m benchmarks.orchestration --json FILE``.

In a clone of this checkout after ``dvc repro``, seconds of the stage ``plan`` as a program, by ``dvc repro``,
by our runner, and as a task of the Prefect flow with a server on loopback, interleaved; and of a stage that
is up to date, by DVC and in the flow. Each is asked several times; medians and quartiles.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from benchmarks.machine import about
from benchmarks.quartiles import in_words, quartiles
from pipeline.compare.clones import Revision
from pipeline.dvc_graph import Step, read_steps, recorded
from pipeline.runner import Runner, environment
from stages.core.files import write_json, write_text

STAGE = "plan"


def ways(root: Path) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    [step] = [step for step in read_steps(root, [STAGE]) if step.name == STAGE]
    repro = [sys.executable, "-m", "dvc", "repro", "--single-item", STAGE]

    return {
        "the stage alone": lambda: _quietly([sys.executable, "-m", f"stages.{STAGE}"]),
        "dvc repro --force": lambda: _quietly([*repro, "--force"]),
        "the runner": lambda: Runner(root).run(step, say=lambda line: None, force=True),
        "a task of the flow": lambda: _task(root, step, force=True),
        "dvc repro, up to date": lambda: _quietly(repro),
        "a task of the flow, up to date": lambda: _task(root, step, force=False),
    }


def _task(root: Path, step: Step, *, force: bool) -> None:
    from pipeline.flow import run_stage

    run_stage(step, Runner(root), recorded(root, step.name) if force else None, False, {})


def _quietly(command: list[str]) -> None:
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr or ended.stdout)


def render(found: Mapping[str, Any]) -> str:
    """Return the table."""
    lines = [
        f"{found['about']}; {found['repeats']} times each, interleaved; seconds.",
        "",
        "| way | seconds |",
    ]
    lines += ["|---|---|", *(f"| {name} | {in_words(value)} |" for name, value in found["seconds"].items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, required=True)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    if given.repeats < 2:
        options.error("--repeats must be at least 2: quartiles are told")
    root = Path.cwd()
    revision = Revision.of(root, [])
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "PREFECT_HOME": str(Path(folder) / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        from prefect.testing.utilities import prefect_test_harness

        clone = revision.clone(Path(folder) / "clone")
        with prefect_test_harness(server_startup_timeout=180), chdir(clone.runner.root):
            asked = ways(clone.runner.root)
            times: dict[str, list[float]] = {name: [] for name in asked}
            for _ in range(given.repeats + 1):
                for name, way in asked.items():
                    start = time.perf_counter()
                    way()
                    times[name].append(time.perf_counter() - start)
    seconds = {name: quartiles(own[1:]) for name, own in times.items()}  # the first one warms up
    found = {"about": about(), "repeats": given.repeats, "seconds": seconds}
    write_json(given.json, found)
    write_text(given.json.with_suffix(".md"), render(found))
    print(render(found))


if __name__ == "__main__":
    main()
