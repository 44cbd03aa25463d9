"""Hyperparameter search by Optuna's ask and tell, in an SQLite file that survives a kill.

The draws of a trial are a function of the sampler's seed, the trial's number and the trials before it. So a search that
was killed, or that is given more trials, goes on with the points that it would have drawn undisturbed.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from metashot.base.errors import ConfigError, MetashotError
from metashot.base.extras import import_extra
from metashot.base.json_text import SEAL, digest_of
from metashot.engine.sweeps.pruning import TrialAddress, make_pruner, trial_id

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A number between `low` and `high`, both included; `log` samples its logarithm evenly."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


Space = Mapping[str, Choice | Interval]


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A search (`hydra.sweeper.search`).

    Attributes:
        storage: Optuna storage URL.
        study: name of the study.
        direction: `maximize` or `minimize` what jobs return.
        n_trials: finished, pruned and failed trials in all.
        sampler: `tpe`, `random` or `cmaes`.
        seed: of the sampler.
        pruner: `none`, `median` or `hyperband`.
        warmup_steps: steps before a trial may be pruned.
        metric: logged metric that pruning judges.
    """

    storage: str
    study: str
    direction: Literal["maximize", "minimize"]
    n_trials: int
    sampler: str
    seed: int
    pruner: str
    warmup_steps: int
    metric: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One asked point.

    Attributes:
        number: of the trial in its study.
        values: parameter -> value.
        address: what its job needs to report intermediate values.
    """

    number: int
    values: dict[str, Value]
    address: TrialAddress


class Search:
    """A study that is opened, or taken up where it was.

    Args:
        spec: how to search.
        space: where to search.

    Raises:
        ConfigError: optuna is missing, nothing is swept, an unknown direction, sampler or pruner, a storage that
            cannot be opened, or a study of the same name with another direction, parameters, choices or ranges.
    """

    def __init__(self, spec: SearchConfig, space: Space) -> None:
        self._optuna = import_extra("optuna", "hydra.sweeper.search")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self.spec = spec
        if spec.direction not in ("maximize", "minimize"):
            raise ConfigError(
                "hydra.sweeper.search.direction",
                f"no direction is called {spec.direction!r}",
                "maximize or minimize",
            )
        if not space:
            raise ConfigError(
                "hydra.sweeper.search",
                "nothing is swept, so every trial would be the same",
                "sweep a key, such as k=4,8,16 or 'optimizer.learning_rate=tag(log, interval(1e-5, 1e-3))'",
            )
        self._space = {name: self._distribution(part) for name, part in space.items()}
        pruner = make_pruner(spec.pruner, spec.warmup_steps)
        with self._storage_errors():
            self._storage = self._optuna.storages.get_storage(spec.storage)
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=spec.study,
                direction=spec.direction,
                sampler=self._sampler(0),
                pruner=pruner,
                load_if_exists=True,
            )
            self._check_kept_study()
            self._begun = self._begun_trials()

    @property
    def remaining(self) -> int:
        """Trials that are left to ask for."""
        return max(0, self.spec.n_trials - sum(trial.state.is_finished() for trial in self._counted()))

    def ask(self, n: int) -> list[Trial]:
        """The next `n` points, at most as many as remain; first those, and only those, that a kill has cut short."""
        wanted = min(n, self.remaining)
        asked, self._begun = self._begun[:wanted], self._begun[wanted:]
        for _ in range(wanted if not asked else 0):
            self._study.sampler = self._sampler(len(self._counted()))
            asked.append(self._study.ask(self._space))
        return [Trial(trial.number, dict(trial.params), self._address(trial.number)) for trial in asked]

    def tell(self, number: int, value: float | None, *, pruned: bool = False) -> None:
        """A trial has ended: with a value, stopped early, or (neither) with an error."""
        states = self._optuna.trial.TrialState
        if pruned:
            self._study.tell(number, state=states.PRUNED)
        elif value is None:
            self._study.tell(number, state=states.FAIL)
        else:
            own = trial_id(self._storage, self.spec.study, number)
            params = dict(self._storage.get_trial(own).params)
            self._storage.set_trial_user_attr(own, SEAL, _seal(params, value))
            self._study.tell(number, value)

    def points(self) -> list[dict[str, Value]]:
        """Parameters of every trial that was asked for, each point once, in order."""
        every = [dict(trial.params) for trial in self._counted() if trial.params]
        return [point for place, point in enumerate(every) if point not in every[:place]]

    def best(self) -> tuple[dict[str, Value], float] | None:
        """Parameters and value of the best finished trial, or None without one."""
        try:
            trial = self._study.best_trial
        except ValueError:
            return None
        return dict(trial.params), float(trial.value)

    def _address(self, number: int) -> TrialAddress:
        spec = self.spec
        return TrialAddress(spec.storage, spec.study, number, spec.metric, spec.pruner, spec.warmup_steps)

    def _counted(self) -> list[Any]:
        """All trials but those that a kill cut short before they had a point."""
        return [t for t in self._study.get_trials(deepcopy=False) if not t.user_attrs.get("interrupted")]

    def _begun_trials(self) -> list[Any]:
        """Trials that were running when the search was killed; one that had not drawn all of its point is drawn anew."""
        states = self._optuna.trial.TrialState
        begun: list[Any] = []
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if set(trial.params) == set(self._space):
                begun.append(trial)
                continue
            own = trial_id(self._storage, self.spec.study, trial.number)
            self._storage.set_trial_user_attr(own, "interrupted", True)
            self._study.tell(trial.number, state=states.FAIL)
        return begun

    def _check_kept_study(self) -> None:
        """A study goes on with the direction, parameters and ranges that it began with.

        Raises:
            ConfigError: another direction, other parameters, choices or ranges.
        """
        place, out = "hydra.sweeper.search.study", "keep them, or choose another study name"
        kept = self._study.direction.name.lower()
        if kept != self.spec.direction:
            raise ConfigError(place, f"study {self.spec.study!r} was begun with direction {kept}", out)
        for trial in self._study.get_trials(deepcopy=False):
            self._check_seal(trial)
            searched, cut = set(trial.distributions), not trial.state.is_finished()
            if not searched or trial.user_attrs.get("interrupted") or (cut and searched < set(self._space)):
                continue
            if searched != set(self._space):
                raise ConfigError(
                    place,
                    f"study {self.spec.study!r} searches {sorted(trial.distributions)}, not {sorted(self._space)}",
                    out,
                )
            for name, was in trial.distributions.items():
                if was != self._space[name]:
                    raise ConfigError(
                        place,
                        f"study {self.spec.study!r} searches {name} in {_said(was)}, not in {_said(self._space[name])}",
                        out,
                    )

    def _check_seal(self, trial: Any) -> None:
        """Raise ConfigError when a finished trial is not as it was told; trials of earlier versions carry no seal."""
        told = trial.user_attrs.get(SEAL)
        if told is not None and trial.value is not None and told != _seal(dict(trial.params), trial.value):
            raise ConfigError(
                "hydra.sweeper.search.storage",
                f"trial {trial.number} of {self.spec.storage!r} is damaged: it differs from its seal",
                "restore the database, or remove it: finished jobs are not run again",
            )

    def _distribution(self, part: Choice | Interval) -> Any:
        distributions = self._optuna.distributions
        if isinstance(part, Choice):
            return distributions.CategoricalDistribution(list(part.values))
        if part.integer:
            return distributions.IntDistribution(int(part.low), int(part.high), log=part.log)
        return distributions.FloatDistribution(part.low, part.high, log=part.log)

    @contextmanager
    def _storage_errors(self) -> Generator[None]:
        try:
            yield
        except MetashotError:
            raise
        except Exception as error:  # whatever the database's driver raises
            raise ConfigError(
                "hydra.sweeper.search.storage",
                f"{self.spec.storage!r} cannot be opened: {(str(error).splitlines() or [''])[0]}",
                "null, or a URL such as sqlite:///search.db in a folder that exists",
            ) from error

    def _sampler(self, place: int) -> Any:
        """The sampler of one trial, by how many come before it."""
        samplers = self._optuna.samplers
        seed = int(digest_of([self.spec.seed, place])[:8], 16)
        makers = {
            "tpe": lambda: samplers.TPESampler(seed=seed),
            "random": lambda: samplers.RandomSampler(seed=seed),
            "cmaes": lambda: (
                import_extra("cmaes", "hydra.sweeper.search.sampler") and samplers.CmaEsSampler(seed=seed)
            ),
        }
        if self.spec.sampler not in makers:
            raise ConfigError(
                "hydra.sweeper.search.sampler",
                f"no sampler is called {self.spec.sampler!r}",
                f"one of {', '.join(makers)}",
            )
        return makers[self.spec.sampler]()


def _seal(params: dict[str, Any], value: float) -> str:
    return digest_of({"params": params, "value": float(value)})


def _said(distribution: Any) -> str:
    """A range or list of choices, in short."""
    if hasattr(distribution, "choices"):
        return f"[{', '.join(map(str, distribution.choices))}]"
    return f"{distribution.low:g} to {distribution.high:g}" + (" (log)" if distribution.log else "")
