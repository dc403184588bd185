"""Start a stage as several processes and end them together.

``speed.processes: N`` runs ``python -m stages.NAME`` N times on this machine. ``DUALPRIV_LAUNCHER`` names a
command that starts them on several: ``torchrun ...``, or ``srun ... torchrun ...``.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stages.core import guard
from stages.core.ranks import LOST, RENDEZVOUS
from stages.core.scratch import scratch_folder

LAUNCHER = "DUALPRIV_LAUNCHER"
REFUSED = "DUALPRIV_REFUSED"
"""Names the file in which a process leaves why it refused its inputs, for launchers lose exit codes."""
GRACE = 15.0
"""Seconds a process has to save and leave before it is killed."""
_CAUSE = 5.0
"""Seconds to wait for the process that the others lost."""
_PAUSE = 0.05


def launch(module: str, processes: int) -> int:
    """Run ``module`` in ``processes`` processes; return 0, or the exit code of the first that failed.

    When one ends badly, or this process is told to stop, all others are told to end and, after a grace,
    killed. What a follower says on standard error is shown only where it failed first, for followers say
    what the leader says.
    """
    with tempfile.TemporaryDirectory(prefix="dualpriv-") as folder:
        errors = [None, *(Path(folder) / f"{rank}.err" for rank in range(1, processes))]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank, error in enumerate(errors):
                started.append(_start(module, rank, processes, Path(folder) / "meeting", error))
            failed = _first_failure(started)
        except BaseException:
            _end(started)
            raise
        if failed is None:
            return 0
        _end(started)
        error = errors[failed]
        if error is not None:
            sys.stderr.write(error.read_text(errors="replace"))
        code = started[failed].returncode
        if code < 0:
            print(f"{module}: process {failed} of {processes} was killed (signal {-code})", file=sys.stderr)
            return 128 - code
        return code


def launch_by(command: str, module: str) -> int:
    """Run ``command -m module`` and return 0, 2 where a process refused its inputs, or the command's code.

    ``command`` is split as a shell would and is told to end when this process ends in any way (Linux); it is
    torchrun's or srun's part to end what it started. A command that is not there is a ValueError.
    """
    words = shlex.split(command)
    here = Path(sys.executable).parent
    path = os.pathsep.join([str(here), os.environ.get("PATH", os.defpath)])
    program = shutil.which(words[0], path=path) if words else None
    if program is None:
        raise ValueError(
            f"{LAUNCHER} says '{command}', which is no command here: install it, or unset {LAUNCHER}"
        )
    with tempfile.TemporaryDirectory(prefix="launch-", dir=scratch_folder()) as folder:
        refused = Path(folder) / "refused"
        environment = {key: value for key, value in os.environ.items() if key != "DUALPRIV_PARENT"}
        guarded = [sys.executable, "-I", guard.__file__, str(os.getpid()), program, *words[1:], "-m", module]
        started = subprocess.Popen(guarded, env=environment | {"PATH": path, REFUSED: str(refused)})
        try:
            code = started.wait()
        except BaseException:
            _end([started])
            raise
        if code and refused.exists():
            sys.stderr.write(refused.read_text())
            return 2
        return code if code >= 0 else 128 - code


def _start(
    module: str, rank: int, processes: int, meeting: Path, error: Path | None
) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(processes),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        "DUALPRIV_PARENT": str(os.getpid()),
        RENDEZVOUS: str(meeting),
    }
    command = [sys.executable, "-m", module]
    if error is None:
        return subprocess.Popen(command, env=environment)
    with open(error, "wb") as log:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def _first_failure(started: list[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended well (None) or one has not (its rank).

    A process that lost another may be seen to end before the one it lost, and a follower before the leader
    that fails for the same reason: both are waited for.
    """
    give_up = float("inf")
    while True:
        codes = [process.poll() for process in started]
        failed = [rank for rank, code in enumerate(codes) if code]
        causes = [rank for rank in failed if codes[rank] != LOST]
        if (causes and codes[0] is not None) or (failed and time.monotonic() > give_up):
            return (causes or failed)[0]
        if all(code == 0 for code in codes):
            return None
        if failed and give_up == float("inf"):
            give_up = time.monotonic() + _CAUSE
        time.sleep(_PAUSE)


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        process.terminate()
    give_up = time.monotonic() + GRACE
    for process in started:
        try:
            process.wait(max(0.0, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
