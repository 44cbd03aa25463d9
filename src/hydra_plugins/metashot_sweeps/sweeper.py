"""`hydra/sweeper=ledger`: products, run lists and Optuna searches that survive a kill.

No `from __future__ import annotations` here: Hydra's plugin scan runs this file outside `sys.modules`, where
dataclasses cannot look up annotations that are text.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.metashot_sweeps.names import register_resolvers
from metashot.base.errors import ConfigError

register_resolvers()


@dataclass
class SearchConf:
    """Keys of `hydra.sweeper.search`; `n_trials` of 0 means no search but every combination."""

    n_trials: int = 0
    """Finished, pruned and failed trials in all."""
    batch: int = 1
    """Trials that are asked for, and launched, at a time."""
    direction: str = "maximize"
    """maximize | minimize the figure that a job ends with."""
    sampler: str = "tpe"
    """tpe | random | cmaes."""
    seed: int = 0
    """Seed of the sampler."""
    pruner: str = "none"
    """none | median | hyperband."""
    warmup_steps: int = 0
    """Steps before a trial may be pruned."""
    metric: str = "eval/mean_percent"
    """Logged metric by which a trial may be pruned."""
    storage: str | None = None
    """Optuna storage URL; null is an SQLite file in the sweep's folder."""
    study: str = "metashot"
    """Name of the study in that storage."""


@dataclass
class SweeperConf:
    """Keys of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.metashot_sweeps.sweeper.LedgerSweeper"
    runs: list[list[str]] = field(default_factory=list)
    """Explicit runs, each a list of overrides; crossed with what is swept."""
    paired: list[str] = field(default_factory=list)
    """Keys swept in step, first value with first value, where others are swept in every combination."""
    params: dict[str, str] = field(default_factory=dict)
    """Sweeps of an experiment file, `method: direct,channel`; the command line overrides them."""
    search: SearchConf = field(default_factory=SearchConf)
    """A search in place of every combination."""


ConfigStore.instance().store(group="hydra/sweeper", name="ledger", node=SweeperConf, provider="metashot")


class LedgerSweeper(Sweeper):
    """Runs every job of a sweep once, however often the command is started.

    Args:
        runs: explicit runs, each a list of overrides.
        params: swept keys, as the command line would write their values.
        paired: swept keys that change together.
        search: keys of `SearchConf`.
    """

    def __init__(
        self,
        runs: Sequence[Sequence[str]],
        params: Mapping[str, str],
        paired: Sequence[str],
        search: Mapping[str, Any],
    ) -> None:
        self.runs = [list(run) for run in runs]
        self.params = dict(params)
        self.paired = list(paired)
        self.search: dict[str, Any] = {str(key): value for key, value in search.items()}
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the task; its launcher is made when the sweep begins."""
        self.config, self.hydra_context, self.task = config, hydra_context, task_function
        self.folder = Path(str(config.hydra.sweep.dir)).absolute()

    def sweep(self, arguments: list[str]) -> Any:
        """Run what is left of the sweep or search, and print the summary.

        Raises:
            ConfigError: a job's config has changed since the sweep began.
            SystemExit: with status 1 when a job failed.
        """
        from hydra_plugins.metashot_sweeps._jobs import Jobs, run_all
        from hydra_plugins.metashot_sweeps._search import run_search

        assert self.hydra_context is not None
        assert self.task is not None
        assert self.config is not None
        jobs = Jobs(self.hydra_context, self.config, self.task, self.folder)
        overrides = self.parsed(arguments)
        if self.search["n_trials"]:
            return run_search(jobs, overrides, self.search)
        rows = combinations(overrides, self.paired)
        return run_all(jobs, [[*row, *run] for run in self.runs or [[]] for row in rows])

    def parsed(self, arguments: list[str]) -> list[Override]:
        """The sweeps of the experiment file and the command line; the latter wins."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        words = [*(f"{key}={values}" for key, values in self.params.items()), *arguments]
        last = {override.get_key_element(): override for override in parser.parse_overrides(words)}
        return list(last.values())


def combinations(overrides: Sequence[Override], paired: Sequence[str]) -> list[list[str]]:
    """The words of every job: `k=2,4 seed=1,2` makes four, and two where both keys are paired.

    Raises:
        ConfigError: a paired key that is not swept, or paired keys of different numbers of values.
    """
    values = {override.get_key_element().lstrip("+~"): alternatives(override) for override in overrides}
    for key in paired:
        if len(values.get(key, [])) < 2:
            raise ConfigError("hydra.sweeper.paired", f"{key!r} is not swept over", f"write {key}=<a>,<b>")
    lengths = {key: len(values[key]) for key in paired}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise ConfigError("hydra.sweeper.paired", f"{told} values", "give as many of each")
    axes = [[(word,) for word in words] for key, words in values.items() if key not in lengths]
    if paired:
        axes.append(list(zip(*(values[key] for key in paired), strict=True)))
    return [[word for words in row for word in words] for row in itertools.product(*axes)]


def alternatives(override: Override) -> list[str]:
    """An override as the jobs of a product have it: one text for each value that it sweeps over.

    Raises:
        ConfigError: an interval, which has no list of values.
    """
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            key,
            f"an interval is for a search, got {override.input_line}",
            "set hydra.sweeper.search.n_trials, or list the values",
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
