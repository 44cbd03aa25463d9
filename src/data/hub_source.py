"""`data=hub`: tasks by recipe, prepared into a folder when they are first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from data.errors import DataError
from data.kshot import TARGET_K, TARGET_SEEDS
from data.manifest import read_manifest
from data.prepare import PrepareSettings, prepare
from data.recipes import recipe_names, task_type
from data.settings import Setting
from data.source import JsonlSource
from data.task import Example, TaskData


class HubSource:
    """Tasks of the shipped recipes and of your own, kept in MetaICL's layout below `settings.root`.

    Args:
        settings: where to prepare and from what; its setting and seeds are replaced by what is asked for.
        console: where preparation reports; quiet by default.
    """

    name = "hub"

    def __init__(self, settings: PrepareSettings, console: Console | None = None) -> None:
        self.settings = settings
        self._console = console or Console(quiet=True)

    def tasks(self) -> list[str]:
        """Names of all recipes."""
        return recipe_names(self.settings.recipe_path)

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One evaluation cell, prepared first where it is not there yet.

        Raises:
            DataError: the task cannot be prepared, or breaks a rule of the data layer.
        """
        shots = k or TARGET_K
        seeds = self._seeds(task, seed)
        self._ensure(
            replace(self.settings, setting=_only(test=[task]), roles=("test",), k=shots, seeds=seeds)
        )
        return self._files(task).load(task, k=k, seed=seed, split=split)

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """Up to `size` training examples, prepared first where they are not there yet."""
        request = replace(self.settings, setting=_only(train=[task]), roles=("train",), pool_seeds=(seed,))
        self._ensure(request)
        return self._files(task).pool(task, size=size, seed=seed)

    def _seeds(self, task: str, seed: int) -> tuple[int, ...]:
        """The published seeds and whatever was made before: a new seed must not undo older files."""
        record = read_manifest(self.settings.root).get(task, "test")
        made = record.seeds if record is not None else ()
        return tuple(dict.fromkeys((*TARGET_SEEDS, *made, seed)))

    def _ensure(self, request: PrepareSettings) -> None:
        failed = prepare(request, self._console).with_status("failed")
        if failed:
            raise DataError(
                f"data=hub, {failed[0].task}", failed[0].reason, "run stage=prepare to see all sources"
            )

    def _files(self, task: str) -> JsonlSource:
        kind = task_type(task, self.settings.recipe_path)
        return JsonlSource(self.settings.root, {} if kind is None else {task: kind.value})


def _only(train: Sequence[str] = (), test: Sequence[str] = ()) -> Setting:
    return Setting("on demand", list(train), list(test), [])
