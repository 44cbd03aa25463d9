"""SIGTERM and Ctrl-C as a request to stop after the step in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class StopRequest:
    """Set by a signal.

    Attributes:
        signal_number: the signal that came, or 0.
    """

    signal_number: int = 0

    @property
    def name(self) -> str:
        """`SIGTERM` or `SIGINT`."""
        return signal.Signals(self.signal_number).name


@contextmanager
def catch_stop_signals() -> Generator[StopRequest]:
    """Note the first SIGTERM or SIGINT instead of dying; a second one acts as usual.

    Outside the main thread, where Python cannot set handlers, nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal_number = number
        restore()

    for number in previous:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
