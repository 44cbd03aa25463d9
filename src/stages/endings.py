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
    except (ValueError, UserWarning, RuntimeError, ImportError) as error:
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


def _fail_at(error: OSError) -> NoReturn:
    """One line for a file or folder that the system refuses, and for a full disk; other errors without a name keep their traceback."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # what a buffer leaves unwritten has no name
    if SHOW_ALL or (error.filename is None and not full):
        raise error
    place = "the output folder" if error.filename is None else printable(str(error.filename))
    print(f"error: {place}: {error.strerror} ({FULL_ERROR}=1 shows where)", file=sys.stderr)
    raise SystemExit(ExitStatus.FAILED) from None


def _die_of(number: signal.Signals) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
