"""SIGTERM and Ctrl-C: in training a request to stop after the step in hand, elsewhere the end at once.

Either way the run ends in `Interrupted`, which no `except Exception` takes for an error of a job or a tracker: what
was interrupted is never a result.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from metashot.base.errors import ExitStatus

_FATAL_SIGNAL_STATUS = 128
_Handler = Callable[[int, FrameType | None], None]
_Install = Callable[[_Handler | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run before it was finished; what is stored lets the same command go on.

    Args:
        signal_number: SIGTERM or SIGINT.
        place: how far the run came, for the user.
    """

    def __init__(self, signal_number: int, place: str = "") -> None:
        super().__init__(signal_number, place)
        self.signal_number = signal_number
        self.place = place

    def __str__(self) -> str:
        name = signal.Signals(self.signal_number).name
        return f"{name} {self.place}" if self.place else name

    @property
    def exit_status(self) -> ExitStatus:
        """What a shell reports of a process that this signal ended."""
        return ExitStatus(_FATAL_SIGNAL_STATUS + self.signal_number)


@dataclass(slots=True)
class StopRequest:
    """Set by a signal.

    Attributes:
        signal_number: the signal that came, or 0.
    """

    signal_number: int = 0


@contextmanager
def catch_stop_signals() -> Generator[StopRequest]:
    """Note the first SIGTERM or SIGINT instead of dying; a second one acts as usual.

    Outside the main thread, where Python cannot set handlers, nothing is caught.
    """
    request = StopRequest()
    with _handlers(signal.SIGTERM, signal.SIGINT) as install:

        def note(number: int, frame: FrameType | None) -> None:
            del frame
            request.signal_number = number
            install(None)

        install(note)
        yield request


_CAME = StopRequest()
"""A SIGTERM that was raised and has not yet ended a block of `sigterm_interrupts`."""


@contextmanager
def sigterm_interrupts() -> Generator[None]:
    """Raise `Interrupted` where the program stands when SIGTERM comes, as Python does for Ctrl-C.

    What is raised inside a finalizer, or below a library's bare `except`, gets nowhere; so it is raised again where a
    block begins or ends.
    """
    with _handlers(signal.SIGTERM) as install:

        def interrupt(number: int, frame: FrameType | None) -> None:
            del frame
            _CAME.signal_number = number
            raise Interrupted(number)

        install(interrupt)
        try:
            _raise_what_came()
            yield
            _raise_what_came()
        except KeyboardInterrupt:
            _CAME.signal_number = 0
            raise


def _raise_what_came() -> None:
    if _CAME.signal_number:
        raise Interrupted(_CAME.signal_number)


@contextmanager
def _handlers(*numbers: signal.Signals) -> Generator[_Install]:
    """A function that sets one handler for these signals; None, and the end of the block, put the old ones back."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda handler: None
        return
    previous = {number: signal.getsignal(number) for number in numbers}

    def install(handler: _Handler | None) -> None:
        for number, old in previous.items():
            # None stands for a handler that was not set from Python and cannot be put back.
            signal.signal(number, handler or (signal.SIG_DFL if old is None else old))

    try:
        yield install
    finally:
        install(None)
