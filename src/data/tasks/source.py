"""Where tasks come from: a folder in MetaICL's layout, the embedded demo, or generated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from metashot.base.errors import DataError, suggestion
from metashot.data.recipes import scoring_of
from metashot.data.rows.jsonl import (
    available_k,
    file_name,
    find_file,
    holds_files,
    read_examples,
    read_records,
)
from metashot.data.rows.manifest import Manifest, read_manifest
from metashot.data.rows.record_checks import check_gold, check_options, judged_note
from metashot.data.task import Example, Scoring, TaskData, TaskType

_LISTED = 8
"""Names of a folder that an error shows."""


class TaskSource(Protocol):
    """What evaluation and meta-training ask of any data group."""

    @property
    def name(self) -> str:
        """Name of the data group."""
        ...

    def tasks(self) -> list[str]:
        """Names of the tasks that are here."""
        ...

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """The k demonstrations of `seed`, and the examples of `split` (`test` or `dev`)."""
        ...

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """Up to `size` training examples for meta-training, in their stored order."""
        ...


class JsonlSource:
    """A folder of `<task>/<task>_<k>_<seed>_<split>.jsonl` files, compressed or not.

    Args:
        root: the folder.
        task_types: declared types; other tasks are scored as their recipe says, or judged by their options.
        recipe_path: folders with recipes of one's own, asked before what stage=prepare wrote down.

    Raises:
        DataError: no such folder, or a type that does not exist.
    """

    name = "jsonl"

    def __init__(
        self,
        root: str | Path,
        task_types: Mapping[str, str] | None = None,
        recipe_path: Sequence[str] = (),
    ) -> None:
        self.root = Path(root).expanduser()
        self._declared = {task: _declared(task, value) for task, value in (task_types or {}).items()}
        self._recipe_path = tuple(recipe_path)
        if not self.root.is_dir():
            raise DataError(
                "data.root", f"no folder {str(self.root)!r}", "give the folder that holds one folder a task"
            )

    def tasks(self) -> list[str]:
        """Names of the folders that hold jsonl files.

        Raises:
            DataError: there is none; says what was looked for and what is there.
        """
        found = sorted(path.name for path in self.root.iterdir() if path.is_dir() and holds_files(path))
        if not found:
            raise DataError(
                "data.root",
                f"{str(self.root)!r} holds no task: looked for <task>/{file_name('<task>', '<k>', '<seed>', '<split>')} "
                f"(or .gz, .zst, .xz), found {_listing(self.root)}",
                "put each task's files into a folder of its name",
            )
        return found

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One evaluation cell; a file made for a larger k serves, since its first k lines are the same draw.

        A note says when a type was judged by the options.

        Raises:
            DataError: a missing task or file, fewer than k demonstrations, or a record that breaks a rule.
        """
        folder = self._folder(task)
        drawn = None
        if k:
            drawn = read_records(self._file(folder, k, seed, "train"))
            if len(drawn.examples) < k:
                raise DataError(
                    str(drawn.path),
                    f"holds {len(drawn.examples)} examples, k={k} asked",
                    f"set k={len(drawn.examples)} or prepare more",
                )
            check_gold(drawn.first(k))
        test = read_records(self._file(folder, k, seed, split))
        check_gold(test)
        said = self._scoring(task)
        kind = check_options(task, test, drawn and drawn.first(k), said and said.task_type)
        judged = said is None and kind is not TaskType.FREE_FORM
        return TaskData(
            task,
            seed,
            kind,
            drawn.examples[:k] if drawn else (),
            test.examples,
            notes=(judged_note(task, kind, test.examples[0].options),) if judged else (),
            metric=said and said.metric,
        )

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The largest training file of `seed`, cut to `size`."""
        folder = self._folder(task)
        sizes = available_k(folder, seed, "train")
        if not sizes:
            raise DataError(
                str(folder),
                f"no training file of seed {seed}; the folder holds {_listing(folder)}",
                "prepare the training role of this task",
            )
        return read_examples(self._file(folder, sizes[-1], seed, "train"))[:size]

    def _scoring(self, task: str) -> Scoring | None:
        """What the user, a recipe or the preparation says of a task; None where its options must tell."""
        if task in self._declared:
            return Scoring(self._declared[task])
        return scoring_of(task, self._recipe_path) or self._manifest.scoring(task)

    def _folder(self, task: str) -> Path:
        folder = self.root / task
        if not folder.is_dir():
            raise unknown_task(task, self.tasks(), f"folder {str(self.root)!r}")
        return folder

    def _file(self, folder: Path, k: int, seed: int, split: str) -> Path:
        """The file of the smallest k that suffices, else of the largest k."""
        sizes = available_k(folder, seed, split)
        chosen = next((size for size in sizes if size >= k), sizes[-1] if sizes else k or 16)
        name = file_name(folder.name, chosen, seed, split)
        path = find_file(folder, name)
        if path is None:
            raise DataError(
                str(folder / name),
                f"no such file; the folder holds {_listing(folder)}",
                f"prepare the {split} split of seed {seed}, or choose seeds that are there",
            )
        self._manifest.check(path)
        return path

    @cached_property
    def _manifest(self) -> Manifest:
        """What stage=prepare wrote down of the folder; empty for files that came from elsewhere."""
        return read_manifest(self.root)


def _declared(task: str, value: str) -> TaskType:
    known = [kind.value for kind in TaskType]
    if value not in known:
        raise DataError(f"data.task_types.{task}", f"no type is called {value!r}", suggestion(value, known))
    return TaskType(value)


def _listing(folder: Path) -> str:
    """What a folder holds, in a few words."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    shown = ", ".join(names[:_LISTED])
    return f"{shown}, ..." if len(names) > _LISTED else shown or "nothing"


def unknown_task(task: str, known: Sequence[str], place: str) -> DataError:
    """The error for a task that a source does not have, with the nearest name."""
    return DataError("data.tasks", f"no task {task!r} in {place}", suggestion(task, known))
