"""Kill this process, or tell it that the disk is full, at a chosen call of the system (Linux only).

Python imports a module of this name when it starts, where the folder is on PYTHONPATH. ``INJECT`` is a JSON
object: ``act`` at the ``at``-th call among ``calls`` (``write``, ``fsync``, ``replace`` of ``os``) on a path
that the pattern ``path`` finds, and append every such call to the file ``log``. Acts:

- ``before``, ``after``: die before or after the call.
- ``half``: die with half of the bytes written (``write``) or half of a new file on disk (``fsync``).
- ``alarm``: die ``delay`` seconds after the call, wherever the process is then.
- ``full``: the call finds the disk full; a write still gets half of its bytes there, as a real one may.
- ``watch``: do nothing.
"""

import errno
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

CALLS = {"write": os.write, "fsync": os.fsync, "replace": os.replace}


def path_of(name: str, arguments: tuple[Any, ...]) -> str:
    """Return the path that a call is about: of its file, or that which it gives a new name."""
    if name == "replace":
        return os.path.abspath(arguments[1])
    return os.readlink(f"/proc/self/fd/{arguments[0]}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(name: str, arguments: tuple[Any, ...]) -> int:
    """Do half of a call, and return what it got done."""
    if name == "write":
        return CALLS["write"](arguments[0], arguments[1][: len(arguments[1]) // 2])
    path = path_of(name, arguments)
    if name == "fsync" and ".partial" in path and os.path.isfile(path):  # any other file was durable before
        os.truncate(path, os.path.getsize(path) // 2)  # by its name: it may be open for reading only
    return 0


class Injector:
    """Counts the calls that an order is about, and carries it out at one of them."""

    def __init__(self, order: dict[str, Any]) -> None:
        """Take the order; ``delay`` is needed by ``alarm`` alone."""
        self.order = order
        self.seen = 0

    def wrap(self, name: str) -> Callable[..., Any]:
        """Return a call of ``os`` that may be the chosen one."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.is_chosen(name, arguments):
                self.act(name, arguments)
                if self.order["act"] == "full":
                    return half(name, arguments) if name == "write" else full()
            done = CALLS[name](*arguments, **keywords)
            if self.order["act"] == "after" and self.seen == self.order["at"]:
                die()
            return done

        return call

    def is_chosen(self, name: str, arguments: tuple[Any, ...]) -> bool:
        """Count and log a call that the order is about; tell whether it is the one."""
        path = path_of(name, arguments)
        if name not in self.order["calls"] or not re.search(self.order["path"], path):
            return False
        self.seen += 1
        with open(self.order["log"], "a") as log:
            log.write(f"{self.seen} {name} {path}\n")
        return bool(self.seen == self.order["at"])

    def act(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Do what comes before the call."""
        if self.order["act"] == "alarm":
            signal.setitimer(signal.ITIMER_REAL, self.order["delay"])  # nobody handles it, so it kills
        if self.order["act"] == "half":
            half(name, arguments)
        if self.order["act"] in ("before", "half"):
            die()


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if "INJECT" in os.environ and any(argument.startswith("stages.") for argument in sys.orig_argv):
    injector = Injector(json.loads(os.environ["INJECT"]))
    for watched in CALLS:
        setattr(os, watched, injector.wrap(watched))
