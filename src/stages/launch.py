"""A run of several processes (torchrun, accelerate launch): one output folder, and one process that writes and prints."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager

from metashot.base.errors import ConfigError
from metashot.engine.training.launched import launched_ranks

MULTIRUN = {"-m", "--multirun"}
_QUIET = ("hydra.output_subdir=null", "hydra/job_logging=disabled")
"""Hydra's own files and log, switched off on all ranks but the first."""


def new_stamp() -> str:
    """Where a run started now keeps its files, below the folder of all runs: unlike any other run's."""
    return f"{time.strftime('%Y-%m-%d/%H-%M-%S')}-{uuid.uuid4().hex[:6]}"


class Launch:
    """What this process knows of its launch before the config is composed.

    Attributes:
        stamp: the run's place below the folder of all runs, the same on every rank.
        leads: whether this process writes and prints.
    """

    def __init__(self) -> None:
        self.stamp = new_stamp()
        self.leads = True

    @contextmanager
    def joined(self) -> Generator[None]:
        """Join the other processes of the launch, if there are any, for the time of the run.

        Raises:
            ConfigError: a multirun, whose jobs the processes could not agree on.
        """
        if launched_ranks() == 1:
            yield
            return
        from metashot.engine.training.ranks import from_first, join_ranks, leads, leave_ranks

        join_ranks()
        self.stamp, self.leads = from_first(self.stamp), leads()
        if MULTIRUN & set(sys.argv):
            raise ConfigError(
                "--multirun",
                "one launch of several processes runs one job",
                "leave -m out, or start the multirun without torchrun",
            )
        if not self.leads:
            sys.argv += _QUIET
        yield
        leave_ranks()

    def tells(self, message: str) -> bool:
        """Whether this process prints a problem, or leaves it to the first rank, which has the same."""
        if self.leads and launched_ranks() == 1:
            return True
        from metashot.engine.training.ranks import said_by_first

        return not said_by_first(message)


LAUNCH = Launch()
