"""Being told to stop: SIGTERM and Ctrl-C leave through every ``finally``, once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; handled like Ctrl-C."""


def stop_on_sigterm() -> None:
    """Raise ``Terminated`` in the main thread when SIGTERM comes."""
    signal.signal(signal.SIGTERM, _terminate)


def ignore_stops() -> None:
    """Ignore further signals: this process is on its way out already."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def not_stopped() -> Iterator[None]:
    """Let no second signal interrupt the block; kill -9 can, and must leave whole files behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ignore_stops()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
