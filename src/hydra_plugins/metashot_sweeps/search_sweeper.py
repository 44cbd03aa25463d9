"""`hydra/sweeper=search`: Optuna over whatever the command line sweeps.

Choices (`method=direct,channel`), ranges (`k=range(4,17,4)`) and intervals
(`optimizer.lr=tag(log, interval(1e-5, 1e-3))`, `int(interval(1, 8))`) become the search space.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.metashot_sweeps.names import register_resolvers

register_resolvers()


@dataclass
class SearchSweeperConf:
    """Keys of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.metashot_sweeps.search_sweeper.SearchSweeper"
    storage: str | None = None
    """Optuna storage URL; null is an SQLite file in the sweep's folder."""
    study: str = "metashot"
    direction: str = "maximize"
    n_trials: int = 20
    batch: int = 1
    """Trials that are asked for, and launched, at a time."""
    sampler: str = "tpe"
    seed: int = 0
    pruner: str = "none"
    warmup_steps: int = 0
    metric: str = "running_mean"
    """Logged metric by which a trial may be pruned."""


ConfigStore.instance().store(
    group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="metashot"
)


class SearchSweeper(Sweeper):
    """Asks for trials, runs them through the chosen launcher, tells their figures.

    Arguments are the keys of `SearchSweeperConf`.
    """

    def __init__(
        self,
        storage: str | None,
        study: str,
        direction: Literal["maximize", "minimize"],
        n_trials: int,
        batch: int,
        sampler: str,
        seed: int,
        pruner: str,
        warmup_steps: int,
        metric: str,
    ) -> None:
        self._keys = (study, direction, n_trials, sampler, seed, pruner, warmup_steps, metric)
        self._storage, self._batch = storage, batch
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the task, wrapped so that it keeps the ledger."""
        from hydra_plugins.metashot_sweeps._jobs import LedgerTask

        self.config, self.hydra_context = config, hydra_context
        self.folder = Path(str(config.hydra.sweep.dir)).absolute()
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=LedgerTask(task_function, self.folder), config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search until the study has its number of trials; print the summary and the best trial.

        Raises:
            ConfigError: bad keys of `hydra.sweeper`.
            SystemExit: with status 1 when a job failed.
        """
        from rich.console import Console

        from engine.ledger import Ledger
        from engine.search import Search, SearchSpec
        from hydra_plugins.metashot_sweeps._jobs import conclude

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(arguments)
        fixed = [
            word
            for word, override in zip(arguments, overrides, strict=True)
            if not override.is_sweep_override()
        ]
        space = {
            override.get_key_element(): part_of(override)
            for override in overrides
            if override.is_sweep_override()
        }
        ledger = Ledger(self.folder)
        with ledger.lock():
            storage = self._storage or f"sqlite:///{self.folder / 'search.db'}"
            search = Search(SearchSpec(storage, *self._keys), space)
            while search.remaining:
                self._run_batch(search, ledger, fixed)
            console = Console()
            records = conclude(ledger, self.folder, [record.key for record in ledger.records()], console)
            if best := search.best():
                values = " ".join(f"{key}={value}" for key, value in best[0].items())
                console.print(f"best: {values} -> {best[1]:.4g}", markup=False)
            return records

    def _run_batch(self, search: Any, ledger: Any, fixed: list[str]) -> None:
        """Ask, launch, tell; a point that was run before is told without running it again."""
        from engine.ledger import JobState
        from hydra_plugins.metashot_sweeps._jobs import compose_job, launch, trial_variable

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        trials = search.ask(self._batch)
        jobs = [
            compose_job(
                self.hydra_context, self.config, [*fixed, *(f"{k}={v}" for k, v in trial.values.items())]
            )
            for trial in trials
        ]
        left = ledger.plan(jobs)
        addresses = {job.key: trial.address.to_text() for job, trial in zip(jobs, trials, strict=True)}
        launch(self.launcher, self.folder, left, [trial_variable(addresses[record.key]) for record in left])
        for job, trial in zip(jobs, trials, strict=True):
            record = ledger.read(job.key)
            pruned = record.state is JobState.PRUNED
            search.tell(trial.number, record.figure, pruned=pruned)


def part_of(override: Override) -> Any:
    """A swept override as a part of the search space.

    Raises:
        HydraException: a glob, which names no values.
    """
    from engine.search import Choice, Interval

    value = override.value()
    if isinstance(value, IntervalSweep):
        integer = isinstance(value.start, int) and isinstance(value.end, int)
        assert value.start is not None
        assert value.end is not None
        return Interval(value.start, value.end, log="log" in value.tags, integer=integer)
    if isinstance(value, ChoiceSweep | RangeSweep):
        return Choice(tuple(map(str, override.sweep_iterator(transformer=Transformer.encode))))
    raise HydraException(
        f"{override.get_key_element()}: a search needs listed values, a range or an interval"
    )
