"""Runs a search: asks for trials, launches them, tells their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException

from hydra_plugins.metashot_sweeps._jobs import Jobs, conclude
from metashot.base.console import PlainConsole
from metashot.engine.sweeps.ledger import Job, JobRecord, JobState, Ledger
from metashot.engine.sweeps.pruning import TRIAL_VARIABLE
from metashot.engine.sweeps.search import Choice, Interval, Search, SearchConfig


def run_search(jobs: Jobs, overrides: Sequence[Override], keys: Mapping[str, Any]) -> list[JobRecord]:
    """Search until the study has its number of trials; print the summary and the best trial.

    Args:
        jobs: composes and launches.
        overrides: what is swept becomes the search space, the rest is fixed.
        keys: of `hydra.sweeper.search`.

    Raises:
        ConfigError: a bad key.
        SystemExit: with status 1 when a job failed.
    """
    fixed = [
        f"{override.get_key_element()}={override.get_value_element_as_str()}"
        for override in overrides
        if not override.is_sweep_override()
    ]
    space = {o.get_key_element(): part_of(o) for o in overrides if o.is_sweep_override()}
    ledger = Ledger(jobs.folder)
    with ledger.lock():
        search = Search(_spec(jobs, keys), space)
        while search.remaining:
            _run_batch(jobs, search, ledger, fixed, int(keys["batch"]))
        console = PlainConsole()
        if best := search.best():
            values = " ".join(f"{key}={value}" for key, value in best[0].items())
            console.print(f"best: {values} -> {best[1]:.4g}", markup=False)
        known = {record.key for record in ledger.records()}
        asked = [Job(_words(fixed, point), {}).key for point in search.points()]
        return conclude(ledger, jobs.folder, [key for key in asked if key in known], console)


def _spec(jobs: Jobs, keys: Mapping[str, Any]) -> SearchConfig:
    rest = {key: value for key, value in keys.items() if key not in ("batch", "storage")}
    return SearchConfig(storage=keys["storage"] or f"sqlite:///{jobs.folder / 'search.db'}", **rest)


def _run_batch(jobs: Jobs, search: Search, ledger: Ledger, fixed: list[str], size: int) -> None:
    """Ask, launch, tell; a point that was run before is told without running it again."""
    trials = search.ask(size)
    composed = [jobs.compose(_words(fixed, trial.values)) for trial in trials]
    left = ledger.plan(composed)
    if len(left) < len(trials):
        again = len(trials) - len(left)
        print(f"{again} of {len(trials)} points were drawn and run before, and are not run again", flush=True)
    addresses = {job.key: trial.address.to_text() for job, trial in zip(composed, trials, strict=True)}
    jobs.launch(left, [{TRIAL_VARIABLE: addresses[record.key]} for record in left])
    for job, trial in zip(composed, trials, strict=True):
        record = ledger.read(job.key)
        search.tell(trial.number, record.figure, pruned=record.state is JobState.PRUNED)


def _words(fixed: Sequence[str], values: Mapping[str, object]) -> tuple[str, ...]:
    """The overrides of one point."""
    return (*fixed, *(f"{key}={value}" for key, value in values.items()))


def part_of(override: Override) -> Choice | Interval:
    """A swept override as a part of the search space.

    Choices (`method=direct,channel`), ranges (`k=range(4,17,4)`) and intervals
    (`optimizer.learning_rate=tag(log, interval(1e-5, 1e-3))`, `k=int(interval(1, 8))`) are understood.

    Raises:
        HydraException: a glob, which names no values.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        integer = isinstance(value.start, int) and isinstance(value.end, int)
        return Interval(value.start, value.end, log="log" in value.tags, integer=integer)
    if isinstance(value, ChoiceSweep | RangeSweep):
        return Choice(tuple(map(str, override.sweep_iterator(transformer=Transformer.encode))))
    raise HydraException(
        f"{override.get_key_element()}: a search needs listed values, a range or an interval"
    )
