"""Where tasks come from: a folder in MetaICL's layout, the embedded demo, or generated ones."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from metashot.data.errors import DataError
from metashot.data.jsonl import available_k, check_gold, check_labels, file_name, read_examples
from metashot.data.recipes import task_type
from metashot.data.task import Example, TaskData, TaskType


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
    """A folder of `<task>/<task>_<k>_<seed>_<split>.jsonl` files.

    Args:
        root: the folder.
        task_types: declared types; other tasks have their recipe's type, or are judged by their options.
    """

    name = "jsonl"

    def __init__(self, root: str | Path, task_types: Mapping[str, str] | None = None) -> None:
        self.root = Path(root).expanduser()
        self.task_types = {task: TaskType(value) for task, value in (task_types or {}).items()}
        if not self.root.is_dir():
            raise DataError(
                "data.root", f"no folder {str(self.root)!r}", "give the folder that holds one folder a task"
            )

    def tasks(self) -> list[str]:
        """Names of the folders that hold jsonl files."""
        return sorted(
            path.name for path in self.root.iterdir() if path.is_dir() and any(path.glob("*.jsonl"))
        )

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One evaluation cell; a file made for a larger k serves, since its first k lines are the same draw.

        Raises:
            DataError: a missing task or file, fewer than k demonstrations, or a record that breaks a rule.
        """
        folder = self._folder(task)
        demonstrations: list[Example] = []
        if k:
            path = self._train_file(folder, k, seed)
            demonstrations = read_examples(path)
            if len(demonstrations) < k:
                raise DataError(
                    str(path),
                    f"holds {len(demonstrations)} examples, k={k} asked",
                    f"set k={len(demonstrations)} or prepare more",
                )
            demonstrations = demonstrations[:k]
            check_gold(demonstrations, path)
        path = self._split_file(folder, k, seed, split)
        test = read_examples(path)
        check_gold(test, path)
        declared = self.task_types.get(task) or task_type(task)
        kind = check_labels([*test, *demonstrations], path, declared)
        return TaskData(task, seed, kind, tuple(demonstrations), tuple(test))

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The largest training file of `seed`, cut to `size`."""
        folder = self._folder(task)
        sizes = available_k(folder, seed, "train")
        if not sizes:
            raise DataError(
                str(folder), f"no training file of seed {seed}", "prepare the training role of this task"
            )
        return read_examples(folder / file_name(task, sizes[-1], seed, "train"))[:size]

    def _folder(self, task: str) -> Path:
        folder = self.root / task
        if not folder.is_dir():
            raise unknown_task(task, self.tasks(), f"folder {str(self.root)!r}")
        return folder

    def _train_file(self, folder: Path, k: int, seed: int) -> Path:
        sizes = available_k(folder, seed, "train")
        large_enough = [size for size in sizes if size >= k]
        if large_enough:
            return folder / file_name(folder.name, large_enough[0], seed, "train")
        if not sizes:
            raise DataError(
                str(folder / file_name(folder.name, k, seed, "train")),
                "no such file",
                f"prepare seed {seed} of this task, or choose seeds that are there",
            )
        return folder / file_name(folder.name, sizes[-1], seed, "train")

    def _split_file(self, folder: Path, k: int, seed: int, split: str) -> Path:
        sizes = available_k(folder, seed, split)
        if not sizes:
            raise DataError(
                str(folder / file_name(folder.name, k or 16, seed, split)),
                "no such file",
                f"prepare the {split} split of seed {seed}, or choose seeds that are there",
            )
        exact = [size for size in sizes if size >= k]
        return folder / file_name(folder.name, (exact or sizes[-1:])[0], seed, split)


def unknown_task(task: str, known: Sequence[str], place: str) -> DataError:
    """The error for a task that a source does not have, with the nearest names."""
    near = difflib.get_close_matches(task, known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(known)[:20])}"
    return DataError("data.tasks", f"no task {task!r} in {place}", hint)
