"""Run one stage as a process: ``if __name__ == "__main__": main(Finetune)``.

A mistake of the user's ends in one sentence on standard error and exit code 2, without a traceback.
"""

import ctypes
import dis
import logging
import os
import signal
import sys
from typing import NoReturn

from stages.core.contract import Stage
from stages.core.files import FULL
from stages.core.guard import PR_SET_PDEATHSIG
from stages.core.launch import LAUNCHER, REFUSED, launch, launch_by
from stages.core.ranks import LOST, RankLost, is_launched
from stages.core.speed import Speed
from stages.core.stopping import Terminated, ignore_stops, stop_once

INTERRUPTED = 130
TERMINATED = 143


def main(stage: type[Stage]) -> None:
    """Load ``stage`` from ``params.yaml`` and run it, in several processes if so asked; exits the process."""
    name = _module_name()
    stop_once()
    end_with_parent()
    quiet_accountants()
    try:
        if stage.parallel and not is_launched():
            _launch(name)
        stage.load().run()
    except (ValueError, KeyError, TypeError) as error:
        if is_ours(error):
            refuse(name, error)
        raise
    except OSError as error:
        if error.errno in FULL:
            place = error.filename or "while writing"
            refuse(name, f"no space left on disk ({place}): free some and run it again")
        if error.filename is None:
            raise
        if isinstance(error, FileNotFoundError):
            refuse(name, f"{error.filename} is missing: run `dvc repro` (or `dvc pull`) to make it")
        refuse(name, f"{error.filename}: {error.strerror}")
    except RankLost as error:
        _leave(_noted(f"{name}: {error}", error), LOST)
    except KeyboardInterrupt as error:
        if isinstance(error, Terminated):
            _leave(_noted(f"{name}: stopped", error), TERMINATED)
        _leave(_noted(f"{name}: interrupted", error), INTERRUPTED)


def _launch(name: str) -> None:
    """Leave the stage to several processes, where they are asked for; exits this one then."""
    command, processes = os.environ.get(LAUNCHER), Speed.load().processes
    if command:
        sys.exit(launch_by(command, name))
    if processes > 1:
        sys.exit(launch(name, processes))


def _noted(sentence: str, error: BaseException) -> str:
    """Return a sentence and what was noted on the way out, such as which steps are saved."""
    return "; ".join([sentence, *getattr(error, "__notes__", [])])


def _leave(sentence: str, code: int) -> NoReturn:
    ignore_stops()
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)


def quiet_accountants() -> None:
    """Hide dp_accounting's warning for every RDP order that does not converge: it leaves that order out."""
    logging.getLogger("absl").setLevel(logging.ERROR)


def refuse(name: str, reason: object) -> NoReturn:
    """Print one sentence, on one line, and exit with code 2."""
    text = reason.args[0] if isinstance(reason, KeyError) and reason.args else reason
    sentence = f"{name}: {' '.join(str(text).split())}"
    if REFUSED in os.environ:
        with open(os.environ[REFUSED], "w") as file:
            file.write(f"{sentence}\n")
    _leave(sentence, 2)


def end_with_parent() -> None:
    """Have the kernel end this process when its parent dies: killing dvc leaves no orphan (Linux only)."""
    if sys.platform != "linux":
        return
    parent = int(os.environ.get("DUALPRIV_PARENT", os.getppid()))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("parent is already gone")


def _module_name() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else "stage"


def is_ours(error: BaseException) -> bool:
    """Tell an error that our code raised, which states a contract, from any other, which is a bug.

    The innermost frame is ours and stands at a ``raise``: ``{}["key"]`` in our code is a bug too.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    raises = dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    return raises and module in ("stages", "pipeline", "__main__")
