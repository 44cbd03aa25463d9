"""Data modules: one class a choice of `conf/data`, each with its own keys; a `TaskSource` comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from metashot.base.errors import DataError
from metashot.base.value_kinds import GivenLine, Name, Positive, Seed
from metashot.data.recipes import load_recipe, recipe_names
from metashot.data.rows.manifest import read_manifest
from metashot.data.task import TaskType
from metashot.data.tasks.demo import DemoSource
from metashot.data.tasks.harness_tasks import HARNESS_SEED, From, HarnessSource
from metashot.data.tasks.sample import SampleKeys
from metashot.data.tasks.source import JsonlSource, TaskSource
from metashot.data.tasks.synthetic import SyntheticSource
from metashot.data.tasks.synthetic_rules import DifficultyName


class DataModule(Protocol):
    """A choice of `conf/data`: tasks, and which of them train and which are evaluated."""

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
class DemoData(SampleKeys):
    """`data=demo`: the embedded tasks."""

    name: Name = "demo"
    """What results carry."""
    tasks: list[GivenLine] | None = None
    """Tasks to evaluate; None takes the targets of the setting, or every task there is."""
    train_tasks: list[GivenLine] = field(default_factory=list)
    """Tasks to train on when no setting is given."""

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
class JsonlData(SampleKeys):
    """`data=jsonl`: a folder in MetaICL's layout."""

    root: GivenLine
    """The folder."""
    name: Name = "jsonl"
    """What results carry."""
    tasks: list[GivenLine] | None = None
    """Tasks to evaluate; None takes the targets of the setting, or every task there is."""
    train_tasks: list[GivenLine] = field(default_factory=list)
    """Tasks to train on when no setting is given."""
    task_types: dict[str, str] = field(default_factory=dict)
    """`classification` or `multi-choice`, by task, for tasks that no recipe describes."""
    fixes: bool = False
    """Whether the files were prepared with corrected labels."""

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
class HubData(SampleKeys):
    """`data=hub`: what `stage=prepare` wrote into `root`."""

    root: GivenLine
    """Folder of the prepared files."""
    name: Name = "hub"
    """What results carry."""
    tasks: list[GivenLine] | None = None
    """Tasks to evaluate; None takes the targets of the setting, or every task there is."""
    train_tasks: list[GivenLine] = field(default_factory=list)
    """Tasks to train on when no setting is given."""
    task_types: dict[str, str] = field(default_factory=dict)
    """Declared types of tasks that no recipe describes."""
    fixes: bool = False
    """Prepare with corrected labels."""
    raw: Path | None = None
    """Folder with source files of your own: `<hub id>/<config>/<split>*.parquet`, ..."""
    recipe_path: tuple[GivenLine, ...] = ()
    """Folders with recipes of your own."""

    def open(self) -> TaskSource:
        """The prepared folder.

        Raises:
            DataError: it was prepared with the other value of `fixes`.
        """
        check_corrections(Path(self.root), self.fixes, self.recipe_path)
        return JsonlSource(self.root, self.task_types, self.recipe_path)

    def targets(self, source: TaskSource) -> list[str]:
        """Every task of the folder."""
        return source.tasks()

    def training(self, source: TaskSource) -> list[str]:
        """The list of the config."""
        return self.train_tasks


@dataclass(frozen=True, slots=True)
class SyntheticData(SampleKeys):
    """`data=synthetic`: procedural tasks, their families for training and for testing apart."""

    name: Name = "synthetic"
    """What results carry."""
    tasks: list[GivenLine] | None = None
    """Tasks to evaluate; None takes all targets."""
    train_tasks: Positive = 120
    """Meta-training tasks, spread evenly over the training families."""
    target_tasks: Positive = 12
    """Target tasks, spread evenly over the target families."""
    seed: Seed = 0
    """Seed of all rules and examples."""
    difficulty: DifficultyName = "easy"
    """How many labels and words a rule has, and how much noise."""
    test_size: Positive = 50
    """Test examples of each target task."""

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


@dataclass(frozen=True, slots=True)
class HarnessData(SampleKeys):
    """`data=lm_eval`: tasks of lm-evaluation-harness."""

    tasks: list[GivenLine]
    """Names of its tasks, groups and tags, or of those in `include_path`."""
    name: Name = "lm_eval"
    """What results carry."""
    train_tasks: list[GivenLine] = field(default_factory=list)
    """Tasks to train on when no setting is given."""
    include_path: str | None = None
    """A folder with task YAML files of one's own."""
    normalization: str | None = "sum"
    """How the harness ranks options: `sum` is its `acc`, `characters` its `acc_norm`, and which of a task's metrics
    goes first; None leaves it to the method, which then measures by itself."""
    demonstrations: From = "drawn"
    """As the key of that name beside `k`."""
    fewshot_seed: Seed = HARNESS_SEED
    """Of the harness's sampler, where `demonstrations=harness`; 1234 is its default."""
    same_demonstrations: bool = False
    """As the key of that name beside `k`."""

    def open(self) -> HarnessSource:
        """The tasks, loaded when they are asked for."""
        return HarnessSource(
            [*self.tasks, *self.train_tasks],
            self.include_path,
            self.demonstrations,
            self.fewshot_seed,
            same_demonstrations=self.same_demonstrations,
        )

    def targets(self, source: TaskSource) -> list[str]:
        """The tasks, those of groups and tags one by one."""
        return self.open().members(self.tasks)

    def training(self, source: TaskSource) -> list[str]:
        """The list of the config."""
        return self.train_tasks


def check_corrections(root: Path, fixes: bool, recipe_path: Sequence[str] = ()) -> None:
    """Hold a prepared folder to `data.fixes`; folders without manifest and tasks without corrections pass.

    Raises:
        DataError: a task was prepared with the other value.
    """
    known = set(recipe_names(recipe_path))
    for task, roles in read_manifest(root).tasks.items():
        if task not in known or not load_recipe(task, path=recipe_path).spec.fixes:
            continue
        for role, record in roles.items():
            if record.fixes != fixes:
                raise DataError(
                    "data.fixes",
                    f"is {str(fixes).lower()}, but {root / task} ({role}) was prepared with {str(record.fixes).lower()}",
                    "set data.fixes as the files are, or prepare them anew into a folder of their own",
                )
