"""The cells of an evaluation: their data, checked, and the fingerprint of all that decides their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

from metashot.base.errors import ConfigError, DataError
from metashot.base.json_text import digest_of
from metashot.data.rows.apart import content_digest
from metashot.data.task import TaskData, TaskType
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.family import CellKey
from metashot.engine.models.loading import LazyLanguageModel
from metashot.icl.prompting.calibration_inputs import with_calibration_inputs
from metashot.icl.scoring.cell import PromptRules
from metashot.icl.scoring.evaluation_settings import EvaluateSettings

SCORING_VERSION = 2
"""Part of every fingerprint: raise it when a change of this code changes scores."""


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
            data = with_calibration_inputs(data, settings.method, source, shots)
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


def cell_key(data: TaskData, rules: PromptRules, model: LazyLanguageModel) -> CellKey:
    """Fingerprint of a cell: data, prompt rules, method and model identity, and nothing that has no effect."""
    fingerprint = digest_of(
        {
            "version": SCORING_VERSION,
            "model": model.identity,
            "method": rules.method.scoring_identity,
            **rules.for_task(data).prompt.identity(),
            "truncation": rules.truncation if data.shots else None,
            "limits": asdict(rules.limits),
            "context_length": rules.context_length,
            "task_type": data.task_type,
            **({"metric": data.metric} if data.metric else {}),
            "demonstrations": [asdict(example) for example in data.demonstrations],
            **(
                {"neighbours": [[asdict(e) for e in row] for row in data.neighbours]}
                if data.neighbours
                else {}
            ),
            **({"unlabelled": data.unlabelled} if data.unlabelled else {}),
            **({"control_tokens": "text"} if rules.prompt.notes_on(data) else {}),
            "test": [asdict(example) for example in data.test],
        }
    )
    return CellKey(data.task, data.seed, fingerprint, len(data.test))
