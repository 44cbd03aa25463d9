"""The cells of an evaluation: their data, checked, and the fingerprint of all that decides their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from metashot.base.errors import ConfigError, DataError
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.data.rows.apart import content_digest
from metashot.data.task import TaskData, TaskType
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.family import CellKey
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.makers import scorer_identity
from metashot.engine.scoring.request import MakeScorer
from metashot.icl.prompting.calibration_inputs import with_calibration_inputs, with_labelled_rows
from metashot.icl.scoring.cell import PromptRules
from metashot.icl.scoring.evaluation_settings import EvaluateSettings

SCORING_VERSION = 3
"""Part of every fingerprint: raise it when a change of this package's code changes scores (docs/trust.md)."""


def load_cells(settings: EvaluateSettings, source: TaskSource) -> Iterator[TaskData]:
    """Read and check every cell's data, one at a time; test rows that seeds share are held once.

    Raises:
        DataError: whatever is wrong with the data, or test sets that differ in size between seeds.
        ConfigError: a free-form task, which has no options to rank.
    """
    shots = settings.method.shots(settings.k)
    for task in settings.tasks:
        sizes: dict[int, int] = {}
        digests: dict[str, int] = {}
        before: TaskData | None = None
        for seed in settings.seeds:
            data = source.load(task, k=shots, seed=seed, split=settings.split)
            if data.task_type is TaskType.FREE_FORM and settings.method.ranks_options:
                raise ConfigError(
                    "data.tasks",
                    f"{task!r} is free-form: it has no options to rank",
                    "use method=generate, or remove it",
                )
            if data.only_by_task:
                raise DataError(
                    task,
                    f"{data.only_by_task}, which no prompt of ours holds",
                    "let the task write its prompts: method=direct prompt=lm_eval data.normalization=sum",
                )
            data = with_calibration_inputs(data, settings.method, source, shots)
            data = with_labelled_rows(data, settings.method, source, shots)
            sizes[seed] = len(data.test)
            if len(set(sizes.values())) > 1:
                raise DataError(
                    task,
                    f"test sets differ in size between seeds: {sizes}",
                    "use the same test file for every seed",
                )
            first = digests.setdefault(content_digest(data), data.seed)
            if len(digests) > 1 and first == data.seed:
                data = replace(data, notes=(*data.notes, _other_rows(task)))
            if before is not None and data.test == before.test:
                data = replace(data, test=before.test)
            before = data
            yield data


def _other_rows(task: str) -> str:
    return (
        f"task {task!r}: the test files of its seeds hold different rows, which intervals take for different "
        "examples; give every seed the same file for one test set"
    )


def shared_identity(
    settings: EvaluateSettings, rules: PromptRules, model: LazyLanguageModel, make_scorer: MakeScorer | None
) -> dict[str, Any]:
    """What decides the values of all cells of an evaluation: settings, model, and what scores options."""
    return {
        "version": SCORING_VERSION,
        "model": model.identity,
        "context_length": rules.context_length,
        "settings": identity_of(settings),
        "scorer": None if make_scorer is None else scorer_identity(make_scorer),
    }


def cell_key(data: TaskData, rules: PromptRules, shared: Mapping[str, Any]) -> CellKey:
    """Fingerprint of a cell: its data, its prompt, and what `shared_identity` says of all cells."""
    fingerprint = digest_of(
        {**shared, "prompt": identity_of(rules.for_task(data).prompt), "data": identity_of(data)}
    )
    return CellKey(data.task, data.seed, fingerprint, len(data.test))
