"""`hydra/sweeper=ledger`: products and explicit run lists that survive a kill."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.metashot_sweeps.names import register_resolvers

register_resolvers()


@dataclass
class LedgerSweeperConf:
    """Keys of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.metashot_sweeps.ledger_sweeper.LedgerSweeper"
    runs: list[list[str]] = field(default_factory=list)
    """Explicit runs, each a list of overrides; crossed with what the command line sweeps."""


ConfigStore.instance().store(
    group="hydra/sweeper", name="ledger", node=LedgerSweeperConf, provider="metashot"
)


class LedgerSweeper(Sweeper):
    """Runs every job of a sweep once, however often the command is started.

    Args:
        runs: explicit runs, each a list of overrides.
    """

    def __init__(self, runs: Sequence[Sequence[str]]) -> None:
        self.runs = [list(run) for run in runs]
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
        """Compose all jobs, run those that are left, print the summary.

        Raises:
            ConfigError: a job's config has changed since the sweep began.
            SystemExit: with status 1 when a job failed.
        """
        from rich.console import Console

        from engine.ledger import Ledger
        from hydra_plugins.metashot_sweeps._jobs import compose_job, conclude, launch

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        jobs = [compose_job(self.hydra_context, self.config, row) for row in self.rows(arguments)]
        ledger = Ledger(self.folder)
        with ledger.lock():
            left = ledger.plan(jobs)
            console = Console()
            if len(left) < len(jobs):
                done = len({job.key for job in jobs}) - len(left)
                console.print(f"{done} of {len(jobs)} jobs are finished already and are not run again")
            launch(self.launcher, self.folder, left)
            return conclude(ledger, self.folder, [job.key for job in jobs], console)

    def rows(self, arguments: list[str]) -> list[list[str]]:
        """Overrides of every job: explicit runs times the product of the command line's sweeps."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (product,) = BasicSweeper.split_arguments(parser.parse_overrides(arguments), None)
        return [[*row, *run] for run in self.runs or [[]] for row in product]
