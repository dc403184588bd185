"""Processes that start at once, and one that is killed at a call of the system (Linux)."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import forkserver
from typing import Any


@cache
def forking() -> Any:
    """Return a context whose processes are forks of one that has loaded the ledger and has one thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ledger_acts", "processes"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # which the server of Python 3.11 is not told
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


def at_once(act: Callable[..., str], arguments: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return what ``act`` says in as many processes as there are arguments, all let go at the same moment."""
    context = forking()
    ready, answers = context.Barrier(len(arguments)), context.SimpleQueue()
    place = (os.getcwd(), {name: value for name, value in os.environ.items() if name.startswith("DUALPRIV_")})
    started = [
        context.Process(target=_act, args=(ready, answers, place, act, given), daemon=True)
        for given in arguments
    ]
    for process in started:
        process.start()
    said = [answers.get() for _ in started]
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * len(started)
    return said


def _act(ready: Any, answers: Any, place: Any, act: Callable[..., str], given: tuple[Any, ...]) -> None:
    os.chdir(place[0])
    os.environ.update(place[1])
    ready.wait()
    try:
        answers.put(act(*given))
    except BaseException as error:
        answers.put(f"{type(error).__name__}: {error}")


TRACE_ME, SYSCALL, SET_OPTIONS = 0, 24, 0x4200
MARK_SYSCALLS, END_WITH_TRACER = 1, 0x100000
NOT_TRACED = 77


def killed_at(call: int, act: Callable[[], object]) -> bool:
    """Let a fork of this process ``act`` and kill it before its ``call``-th call of the system.

    Return False when it came to its end first. Only a process with one thread may ask.
    """
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.restype, ptrace.argtypes = (
        ctypes.c_long,
        [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p],
    )
    child = os.fork()
    if child == 0:
        try:
            if ptrace(TRACE_ME, 0, None, None) != 0:
                os._exit(NOT_TRACED)
            os.kill(os.getpid(), signal.SIGSTOP)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    seen, signalled, entering = 0, 0, True
    _, status = os.waitpid(child, 0)
    if os.WIFSTOPPED(status):
        ptrace(SET_OPTIONS, child, None, MARK_SYSCALLS | END_WITH_TRACER)
    while os.WIFSTOPPED(status):
        ptrace(SYSCALL, child, None, signalled)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            break
        signalled = 0
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            signalled = os.WSTOPSIG(status)
            continue
        seen += entering
        if entering and seen == call:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        entering = not entering
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == NOT_TRACED:
        raise PermissionError("the kernel lets no process be traced")
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status
    return False
