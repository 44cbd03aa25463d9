"""The config node `data` to a task source; one dataclass per data group, so that each has its own keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metashot.data.demo import DemoSource
from metashot.data.preparation.manifest import check_corrections
from metashot.data.recipes import recipe_names, task_type
from metashot.data.settings import load_setting, published_overlap
from metashot.data.source import JsonlSource, TaskSource
from metashot.data.synthetic import SyntheticSource
from metashot.data.task import TaskType
from metashot.engine.errors import ConfigError
from metashot.stages.nodes import build, suggestion


class DataGroup(Protocol):
    """A choice of `conf/data`."""

    @property
    def name(self) -> str:
        """The choice's name, which results carry when no setting is chosen."""
        ...

    @property
    def tasks(self) -> list[str] | None:
        """Which tasks; None means the targets of the setting, or all targets of the group."""
        ...

    def open(self) -> TaskSource:
        """The source itself."""
        ...

    def targets(self, source: TaskSource) -> list[str]:
        """Tasks to evaluate when neither setting nor tasks are given."""
        ...

    def training(self, source: TaskSource) -> list[str]:
        """Tasks to train on when no setting is given."""
        ...


@dataclass(frozen=True, slots=True)
class DemoData:
    """`data=demo`; `root` and `fixes` are there so that overrides fit every group."""

    name: str
    tasks: list[str] | None
    train_tasks: list[str]
    root: str | None
    fixes: bool

    def open(self) -> TaskSource:
        """The embedded tasks."""
        return DemoSource()

    def targets(self, source: TaskSource) -> list[str]:
        """All tasks with options."""
        demo = DemoSource()
        return [task for task in demo.tasks() if demo.task_type(task) is not TaskType.FREE_FORM]

    def training(self, source: TaskSource) -> list[str]:
        """The list of the config."""
        return self.train_tasks


@dataclass(frozen=True, slots=True)
class JsonlData:
    """`data=jsonl`: a folder in MetaICL's layout.

    Attributes:
        name: of the group.
        root: the folder.
        tasks: tasks to evaluate.
        train_tasks: tasks to train on when no setting is given.
        task_types: declared types of tasks that no recipe describes.
        fixes: whether the files were prepared with corrected labels.
    """

    name: str
    root: str
    tasks: list[str] | None
    train_tasks: list[str]
    task_types: dict[str, str]
    fixes: bool

    def open(self) -> TaskSource:
        """The folder."""
        return JsonlSource(self.root, self.task_types)

    def targets(self, source: TaskSource) -> list[str]:
        """Every task of the folder."""
        return source.tasks()

    def training(self, source: TaskSource) -> list[str]:
        """The list of the config."""
        return self.train_tasks


@dataclass(frozen=True, slots=True)
class HubData:
    """`data=hub`: what `stage=prepare` wrote into `root`.

    Attributes:
        name: of the group.
        root: folder of the prepared files.
        tasks: tasks to evaluate.
        train_tasks: tasks to train on when no setting is given.
        task_types: declared types of tasks that no recipe describes.
        fixes: prepare with corrected labels.
        raw: folder with source files of your own.
        recipe_path: folders with recipes of your own.
    """

    name: str
    root: str
    tasks: list[str] | None
    train_tasks: list[str]
    task_types: dict[str, str]
    fixes: bool
    raw: str | None
    recipe_path: list[str]

    def open(self) -> TaskSource:
        """The prepared folder.

        Raises:
            DataError: it was prepared with the other value of `fixes`.
        """
        check_corrections(Path(self.root), self.fixes, self.recipe_path)
        own = {
            task: kind
            for task in recipe_names(self.recipe_path)
            if (kind := task_type(task, self.recipe_path))
        }
        return JsonlSource(self.root, self.task_types, own)

    def targets(self, source: TaskSource) -> list[str]:
        """Every task of the folder."""
        return source.tasks()

    def training(self, source: TaskSource) -> list[str]:
        """The list of the config."""
        return self.train_tasks


@dataclass(frozen=True, slots=True)
class SyntheticData:
    """`data=synthetic`: procedural tasks; see `data.synthetic.SyntheticSource` for the numbers."""

    name: str
    tasks: list[str] | None
    root: str | None
    fixes: bool
    train_tasks: int
    target_tasks: int
    seed: int
    difficulty: str
    test_size: int

    def open(self) -> SyntheticSource:
        """The generated tasks."""
        return SyntheticSource(
            self.train_tasks, self.target_tasks, self.seed, self.difficulty, self.test_size
        )

    def targets(self, source: TaskSource) -> list[str]:
        """Tasks of the target families."""
        return self.open().testing_tasks()

    def training(self, source: TaskSource) -> list[str]:
        """Tasks of the training families."""
        return self.open().training_tasks()


_GROUPS: dict[str, type[DemoData] | type[JsonlData] | type[HubData] | type[SyntheticData]] = {
    "demo": DemoData,
    "hub": HubData,
    "jsonl": JsonlData,
    "synthetic": SyntheticData,
}


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


def choose_tasks(config: Mapping[str, Any]) -> TaskChoice:
    """Source and tasks from the config nodes `data` and `setting`.

    Raises:
        ConfigError: an unknown group or key.
        DataError: an unknown setting, or a source that cannot be opened.
    """
    name = str(config["data"]["name"])
    if name not in _GROUPS:
        raise ConfigError("data.name", f"unknown value {name!r}", suggestion(name, _GROUPS))
    group: DataGroup = build(_GROUPS[name], config["data"], "data")
    source = group.open()
    if config["setting"] is None:
        targets: Sequence[str] = group.tasks if group.tasks is not None else group.targets(source)
        return TaskChoice(group.name, source, tuple(targets), tuple(group.training(source)))
    setting = load_setting(str(config["setting"]["name"]))
    targets = group.tasks if group.tasks is not None else setting.test
    return TaskChoice(
        setting.name, source, tuple(targets), tuple(setting.train), tuple(published_overlap(setting))
    )
