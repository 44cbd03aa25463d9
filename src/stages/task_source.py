"""The nodes `data` and `setting` to the tasks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metashot.base.errors import ConfigError
from metashot.data.settings import load_setting, published_overlap
from metashot.data.tasks.apart_source import ApartSource
from metashot.data.tasks.harness_tasks import HarnessSource
from metashot.data.tasks.sample import SampledSource, SampleKeys
from metashot.data.tasks.source import TaskSource
from metashot.stages.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class TaskChoice:
    """What a run works on.

    Attributes:
        setting: name that results carry.
        source: where examples come from.
        targets: tasks to evaluate.
        training: tasks to train on; empty when neither setting nor config names any.
        overlap: tasks that the published setting has on both sides.
        harness: the tasks of lm-evaluation-harness themselves, where `data` holds such.
    """

    setting: str
    source: TaskSource
    targets: tuple[str, ...]
    training: tuple[str, ...]
    overlap: tuple[str, ...] = ()
    harness: HarnessSource | None = None


def choose_tasks(config: RunConfig) -> TaskChoice:
    """Source and tasks of a run.

    Raises:
        DataError: an unknown setting, or a source that cannot be opened.
        ConfigError: demonstrations of the harness for other tasks than its own.
    """
    data = config.data
    opened = data.open()
    harness = opened if isinstance(opened, HarnessSource) else None
    if harness is None and (config.demonstrations != "drawn" or config.same_demonstrations):
        key = "same_demonstrations" if config.demonstrations == "drawn" else "demonstrations"
        raise ConfigError(
            key, "is for tasks of lm-evaluation-harness", "use data=lm_eval, or selection.strategy"
        )
    source: TaskSource = opened
    if isinstance(data, SampleKeys) and (data.limit is not None or data.subset is not None):
        source = SampledSource(opened, data)
    source = ApartSource(source)
    if config.setting is None:
        named: Sequence[str] = data.tasks if data.tasks is not None else data.targets(source)
        targets = named if harness is None else harness.members(named)
        return TaskChoice(data.name, source, tuple(targets), tuple(data.training(source)), harness=harness)
    setting = load_setting(config.setting.name)
    if isinstance(train := getattr(data, "train_tasks", None), list) and train:
        raise ConfigError(
            "data.train_tasks",
            "is set, and setting=... names the training tasks too",
            "leave one of them out",
        )
    named = data.tasks if data.tasks is not None else setting.test
    targets = named if harness is None else harness.members(named)
    overlap = tuple(published_overlap(setting))
    return TaskChoice(setting.name, source, tuple(targets), tuple(setting.train), overlap, harness)
