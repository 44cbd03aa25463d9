"""How a run ends that does not finish: one line and an exit status, and no folder without results."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from metashot.base.errors import ExitStatus, MetashotError
from metashot.base.terminal import printable
from metashot.engine.training.signals import Interrupted
from metashot.stages.composition_errors import GROUP_NULL, PLUGIN, SEARCH_PATH, explain
from metashot.stages.launch import LAUNCH

FULL_ERROR = "HYDRA_FULL_ERROR"
SHOW_ALL = os.environ.get(FULL_ERROR) == "1"
"""Whether the user asked for whole tracebacks, before `main` sets the variable for Hydra."""
LOG_FILE = "Unable to configure handler"
"""How logging begins what it says of a log file that cannot be opened; its cause is the system's error."""
AGENT = "WANDB_SWEEP_ID"
"""Set by `wandb agent`, which gives up after a few jobs with a status above 0, but not after jobs that died of its SIGTERM."""
NO_MEMORY = (
    "failed to map segment", "can't allocate memory", "can't start new thread", "std::bad_alloc", "not enough memory",
)  # fmt: skip
"""How the parts of torch and the loader of libraries say that the system gives no more."""
_LIMIT = "raise the limit that the shell or the container sets (ulimit -a), or take a smaller model"
LIMITS = {
    errno.ENOSPC: ("the output folder", f"{FULL_ERROR}=1 shows where"),
    errno.EDQUOT: ("the output folder", f"{FULL_ERROR}=1 shows where"),
    errno.EFBIG: ("the output folder", "raise the limit of file sizes (ulimit -f)"),
    errno.EMFILE: ("open files", "raise their limit (ulimit -n)"),
    errno.ENFILE: ("open files", "the system has no more of them"),
    errno.ENOMEM: ("memory", _LIMIT),
    errno.EAGAIN: ("processes", _LIMIT),
    errno.EPIPE: ("the output", "its reader has gone; write to a file, what is finished is stored"),
}
"""Errors of the system that name no file: what they are about, and the way out."""
RUN_FILES = (".hydra", "run.json")
GOING_ON = (
    "what was finished is stored; the same command goes on, a single run with its folder as hydra.run.dir"
)


@contextmanager
def nothing_left(output: Path) -> Generator[None]:
    """After a user's mistake, remove an output folder that holds no result."""
    try:
        yield
    except (MetashotError, OmegaConfBaseException):
        if (
            LAUNCH.leads
            and output.is_dir()
            and all(path.name in RUN_FILES or path.suffix == ".log" for path in output.iterdir())
        ):
            shutil.rmtree(output)
            with suppress(OSError):  # the folders of the day, unless other runs are in them
                output.parent.rmdir()
                output.parent.parent.rmdir()
        raise


def fail(message: str) -> NoReturn:
    """Print the one-line error, once in a launch of several processes, and leave with the status of a usage error."""
    if LAUNCH.tells(message):
        print(f"error: {printable(message)}", file=sys.stderr)
    raise SystemExit(ExitStatus.MISTAKE)


@contextmanager
def one_line_errors() -> Generator[None]:
    """Turn a user's mistake into one line and exit status 2, a full disk into 1, an interruption into 130 or 143."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if SHOW_ALL:
            raise
        fail(explain(error))
    except MemoryError as error:
        if SHOW_ALL:
            raise
        _fail_at(OSError(errno.ENOMEM, str(error) or os.strerror(errno.ENOMEM)))
    except (ValueError, UserWarning, RuntimeError, ImportError) as error:
        if not SHOW_ALL and any(words in str(error) for words in NO_MEMORY):
            _fail_at(OSError(errno.ENOMEM, str(error).splitlines()[0]))
        if isinstance(error.__cause__, OSError) and str(error).startswith(LOG_FILE):
            _fail_at(error.__cause__)
        if SHOW_ALL or not str(error).startswith((GROUP_NULL, SEARCH_PATH, *PLUGIN)):
            raise
        fail(explain(error))
    except MetashotError as error:  # of the sweep itself; a job has its own
        if SHOW_ALL:
            raise
        fail(str(error))
    except OSError as error:
        _fail_at(error)
    except KeyboardInterrupt as error:
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        if LAUNCH.leads:
            print(f"interrupted: {stop} ({GOING_ON})", file=sys.stderr)
        if stop.signal_number == signal.SIGTERM and AGENT in os.environ:
            _die_of(signal.SIGTERM)
        raise SystemExit(stop.exit_status) from None


def check_working_folder() -> None:
    """Raise the system's error, with a name, where the working folder was removed; Hydra's own has none."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, "the working folder") from None


def _fail_at(error: OSError) -> NoReturn:
    """One line for a file that the system refuses, and for a limit that is reached; other errors keep their traceback."""
    place, remedy = "", f"{FULL_ERROR}=1 shows where"
    if error.filename is not None:
        place = printable(str(error.filename))
    elif error.errno in LIMITS:  # what a buffer leaves unwritten has no name
        place, remedy = LIMITS[error.errno]
    if SHOW_ALL or not place:
        raise error
    if error.errno == errno.EPIPE:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left in the buffer has nobody to go to
    print(f"error: {place}: {printable(str(error.strerror))} ({remedy})", file=sys.stderr)
    raise SystemExit(ExitStatus.FAILED) from None


def _die_of(number: signal.Signals) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
