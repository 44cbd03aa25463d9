"""The nodes `data` and `setting` to the tasks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metashot.base.errors import ConfigError
from metashot.data.settings import load_setting, published_overlap
from metashot.data.tasks.apart_source import ApartSource
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
    """

    setting: str
    source: TaskSource
    targets: tuple[str, ...]
    training: tuple[str, ...]
    overlap: tuple[str, ...] = ()


def choose_tasks(config: RunConfig) -> TaskChoice:
    """Source and tasks of a run.

    Raises:
        DataError: an unknown setting, or a source that cannot be opened.
    """
    data = config.data
    opened = data.open()
    if isinstance(data, SampleKeys) and (data.limit is not None or data.subset is not None):
        opened = SampledSource(opened, data)
    source = ApartSource(opened)
    if config.setting is None:
        targets: Sequence[str] = data.tasks if data.tasks is not None else data.targets(source)
        return TaskChoice(data.name, source, tuple(targets), tuple(data.training(source)))
    setting = load_setting(config.setting.name)
    if isinstance(named := getattr(data, "train_tasks", None), list) and named:
        raise ConfigError(
            "data.train_tasks",
            "is set, and setting=... names the training tasks too",
            "leave one of them out",
        )
    targets = data.tasks if data.tasks is not None else setting.test
    return TaskChoice(
        setting.name, source, tuple(targets), tuple(setting.train), tuple(published_overlap(setting))
    )
