"""Jobs in processes: a signal ends the workers with the first process."""

import io
import multiprocessing
import time
from dataclasses import dataclass

import pytest
from rich.console import Console

from metashot.data.preparation.work_pool import run_jobs


@dataclass(frozen=True)
class Job:
    task: str
    seconds: float
    role: str = "test"


def work(job, report):
    time.sleep(job.seconds)
    return job.task


def test_an_interruption_ends_the_workers_and_is_passed_on():
    jobs = [Job("short", 0.0), Job("long", 600.0), Job("waiting", 600.0)]
    results = run_jobs(work, jobs, 2, Console(file=io.StringIO()))
    assert next(results) == (jobs[0], "short")
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    deadline = time.monotonic() + 30
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []
