"""A whole command in a fork of a warm process, which something strikes at its n-th change of a file.

What a command does to files is a sequence of events: a file opened for writing, a rename, a removal, a new folder, the
moment before and after an fsync. The same command has the same events in the same order, so that kills can be spread
over all of them without a clock.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}


@dataclass(frozen=True)
class Signal:
    """Sent to this process."""

    number: int = signal.SIGKILL

    def __call__(self) -> None:
        os.kill(os.getpid(), self.number)


KILL = Signal()


@dataclass(frozen=True)
class Removal:
    """A folder goes, as by another hand."""

    folder: str

    def __call__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Events:
    """Counts the changes below a folder, and lets something happen before one of them."""

    def __init__(self, root: str, at: int, strike: Callable[[], None]) -> None:
        self.root, self.at, self.strike, self.seen = root, at, strike, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            changes = bool((flags or 0) & _WRITING) or bool(set(mode or "") & set("wax+"))
            if changes and str(path).startswith(self.root):
                self.count()
        elif event in _CHANGES and str(arguments[0]).startswith(self.root):
            self.count()

    def count(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.strike()


def without_privileges() -> None:
    """Drop this process's capabilities: permissions then hold for root as for anyone."""
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    assert ctypes.CDLL(None, use_errno=True).capset(version, (ctypes.c_uint32 * 6)()) == 0


def _watch(root: str, at: int, strike: Callable[[], None]) -> Events:
    events = Events(root, at, strike)
    sync = os.fsync

    def counted(descriptor: int) -> None:
        events.count()
        sync(descriptor)
        events.count()

    os.fsync = counted
    sys.addaudithook(events)
    return events


def run(
    arguments: list[str],
    root: str,
    at: int = 0,
    strike: Callable[[], None] = KILL,
    environment: dict[str, str] | None = None,
    privileged: bool = True,
) -> None:
    """`run.py` with these arguments; its output lies in `<root>.log`, the number of events in `<root>.events`,
    its largest memory (KiB) in `<root>.peak`.

    Args:
        arguments: overrides.
        root: folder whose changes count; the command runs in it.
        at: before which change something happens, counted from 1; 0 for none.
        strike: what happens.
        environment: variables to set.
        privileged: False holds root to the permissions of files.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment or {})
    os.chdir(root)
    log = os.open(f"{root}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sys.argv = ["run.py", *arguments]
    from metashot.stages import command

    events = _watch(root, at, strike)
    if not privileged:
        without_privileges()
    try:
        command.main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        seen, events.at = events.seen, -1
        Path(f"{root}.events").write_text(json.dumps(seen))
        Path(f"{root}.peak").write_text(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
