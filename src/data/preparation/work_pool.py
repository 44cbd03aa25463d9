"""Independent jobs over processes, with a progress line for each one that is running."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from threading import Thread
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from metashot.base.errors import MetashotError
from metashot.base.terminal import printable

_POLL_SECONDS = 0.2

Result = TypeVar("Result")
Report = Callable[[str, int], None]


class Named(Protocol):
    """What a job is shown as."""

    @property
    def task(self) -> str:
        """Task name."""
        ...

    @property
    def role(self) -> str:
        """Its role."""
        ...


JobT = TypeVar("JobT", bound=Named)


def run_jobs(
    work: Callable[[JobT, Report], Result], jobs: Sequence[JobT], workers: int, console: Console
) -> Iterator[tuple[JobT, Result | str]]:
    """Run `work(job, progress)` for each job; yields each job with its result, or with the reason of its failure.

    Args:
        work: a module-level function (it crosses process borders).
        jobs: picklable jobs.
        workers: processes; 1 runs in this one.
        console: where progress is shown.
    """
    with _Display(console, len(jobs)) as display:
        if workers == 1 or len(jobs) < 2:
            for job in jobs:
                result = _attempt(work, job, partial(display.show, _label(job)))
                display.finish(_label(job), result)
                yield job, result
        else:
            yield from _in_processes(work, jobs, min(workers, len(jobs)), display)


def _in_processes(
    work: Callable[[JobT, Report], Result], jobs: Sequence[JobT], workers: int, display: _Display
) -> Iterator[tuple[JobT, Result | str]]:
    # Spawned, not forked: a fork would copy the locks of whatever threads the parent runs.
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_adopt, initargs=(messages,)) as pool:
        futures: dict[Future[Any], JobT] = {pool.submit(_in_worker, work, job): job for job in jobs}
        pending = set(futures)
        try:
            while pending:
                finished, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                _drain(messages, display)
                for future in finished:
                    job = futures[future]
                    result = _result_of(future)
                    display.finish(_label(job), result)
                    yield job, result
        except BaseException:
            # A signal: what the workers have in hand is of no use, and they do not hear of it themselves.
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _result_of(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        return "the worker process died (out of memory?): lower prepare.workers"


def _attempt(work: Callable[[JobT, Report], Result], job: JobT, report: Report) -> Result | str:
    try:
        return work(job, report)
    except MetashotError as error:
        return str(error)
    except Exception as error:  # one broken task must not take the others with it
        return f"{type(error).__name__}: {error}"


_messages: Any = None


def _adopt(messages: Any) -> None:
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    """A worker whose parent was killed would wait for its next job for ever."""
    parent.join()
    os._exit(1)


def _in_worker(work: Callable[[JobT, Report], Result], job: JobT) -> Result | str:
    label = _label(job)
    return _attempt(work, job, lambda what, rows: _messages.put((label, what, rows)))


def _drain(messages: Any, display: _Display) -> None:
    while True:
        try:
            display.show(*messages.get_nowait())
        except queue.Empty:
            return


def _label(job: Named) -> str:
    return f"{job.task} ({job.role})"


class _Display:
    """One bar over all jobs and one line for each running one; a line per finished job where there is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._all = self._progress.add_task("all tasks", total=total)
        self._running: dict[str, TaskID] = {}

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, label: str, what: str, rows: int) -> None:
        if label not in self._running:
            self._running[label] = self._progress.add_task(label, total=None)
        self._progress.update(self._running[label], description=printable(f"{label}: {what}"), completed=rows)

    def finish(self, label: str, result: Any) -> None:
        if label in self._running:
            self._progress.remove_task(self._running.pop(label))
        self._progress.advance(self._all)
        state = "failed: " + result if isinstance(result, str) else "done"
        self._console.print(printable(f"{label}: {state}"), markup=False, highlight=False, soft_wrap=True)
