"""Being told to stop: SIGTERM and Ctrl-C leave through every ``finally``, once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; handled like Ctrl-C."""


def stop_once() -> None:
    """Raise ``Terminated`` on SIGTERM and KeyboardInterrupt on Ctrl-C, whichever comes first; ignore others.

    Edge cases: a shell's background job, which ignores Ctrl-C, goes on ignoring it.
    """
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def ignore_stops() -> None:
    """Ignore further signals: this process is on its way out already."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def not_stopped() -> Iterator[None]:
    """Let no signal interrupt the block; kill -9 can, and must leave whole files behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ignore_stops()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    ignore_stops()
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
