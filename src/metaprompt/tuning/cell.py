"""One (task, data seed, seed) cell of prompt tuning: its tasks, its identity, its run and its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metashot.base.errors import ConfigError
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import Backbone
from metashot.metaprompt.soft_prompt import check_positions
from metashot.metaprompt.tuning.config import TuneSettings, TuningMethod
from metashot.metaprompt.tuning.cuts import lost_tokens
from metashot.metaprompt.tuning.loop import LabelledSet, TunedCell, tune
from metashot.metaprompt.tuning.starting_point import LENGTH_KEYS, StartingPoint, make_tunable
from metashot.metaprompt.tuning.tasks import (
    PromptTask,
    TaskRenderer,
    TaskRows,
    bind_task,
    load_prompt_task,
    load_rows,
    sample_per_label,
)

_CODE_VERSION = 2
"""Part of every fingerprint: raise it when a change of this package's code changes what is tuned (docs/trust.md)."""


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A training task with its test tasks, bound to a tokenizer.

    Attributes:
        renderer: of the training task.
        rows: of the training task.
        tests: renderer and rows of each test task, by the name that results carry.
    """

    renderer: TaskRenderer
    rows: TaskRows
    tests: dict[str, tuple[TaskRenderer, TaskRows]]


def load_task(name: str, settings: TuneSettings, language_model: LanguageModel) -> LoadedTask:
    """Load a training task and its test tasks.

    Raises:
        ConfigError: a transfer task with other labels, or texts and prompt longer than the model's positions.
    """
    wordless = settings.tuning in (TuningMethod.FULL, TuningMethod.LORA)
    if wordless or settings.prompt_path is None:
        length = 0 if wordless else settings.prompt_length
        check_positions(language_model, length, settings.max_tokens, LENGTH_KEYS)
    task = load_prompt_task(name, settings.pattern)
    rows = load_rows(task, settings.data_source, settings.data_root)
    renderer = _bind(task, settings, language_model)
    tests = {task.name: (renderer, rows)}
    for other_name in settings.transfer.get(name, ()):
        other = load_prompt_task(other_name, settings.pattern)
        if other.labels != task.labels:
            raise ConfigError(
                f"tuning.transfer.{name}",
                f"{other.name} has labels {', '.join(other.labels)}, {task.name} {', '.join(task.labels)}",
                "choose a task with the same labels in the same order",
            )
        other_rows = load_rows(other, settings.data_source, settings.data_root)
        tests[f"{task.name}->{other.name}"] = (_bind(other, settings, language_model), other_rows)
    return LoadedTask(renderer, rows, tests)


def _bind(task: PromptTask, settings: TuneSettings, language_model: LanguageModel) -> TaskRenderer:
    behaviour = settings.behaviour()
    return bind_task(
        task,
        language_model.tokenizer,
        is_seq2seq=language_model.is_seq2seq,
        max_tokens=settings.max_tokens,
        released_words=behaviour.inverted_boolq,
        released_truncation=behaviour.released_truncation,
    )


def labelled(renderer: TaskRenderer, rows: Sequence[Mapping[str, Any]]) -> LabelledSet:
    """Rows rendered, with their labels."""
    return LabelledSet(
        tuple(renderer.example(row) for row in rows),
        tuple(int(row["label"]) for row in rows),
        renderer.label_ids,
    )


def run_cell(
    settings: TuneSettings,
    backbone: Backbone,
    task: LoadedTask,
    start: StartingPoint,
    *,
    data_seed: int,
    seed: int,
    at: Callable[[int, int], None] | None = None,
) -> TunedCell:
    """Sample, render, tune and predict, telling `at` the steps; the shared model is left as it was."""
    pool = task.rows.train
    train, dev = sample_per_label([row["label"] for row in pool], settings.k, data_seed)
    tests = {
        name: labelled(renderer, settings.tested(rows.test)) for name, (renderer, rows) in task.tests.items()
    }
    method = settings.component
    own = None if method is None else method.tunable(settings, backbone, start, seed)
    tunable = make_tunable(settings, backbone, start, seed) if own is None else own
    try:
        return tune(
            tunable,
            backbone.language_model,
            train=labelled(task.renderer, [pool[i] for i in train]),
            dev=labelled(task.renderer, [pool[i] for i in dev]),
            tests=tests,
            rules=settings.train_rules(),
            seed=seed,
            at=at,
        )
    finally:
        tunable.close()


def fingerprint(
    settings: TuneSettings,
    language_model: LanguageModel,
    task: LoadedTask,
    *,
    test: str,
    start: StartingPoint,
    data_seed: int,
    seed: int,
) -> str:
    """Digest of everything that decides a cell's value; names and folders do not."""
    renderer, rows = task.tests[test]
    return digest_of(
        {
            "code": _CODE_VERSION,
            "settings": identity_of(settings),
            "start": start.digest,
            "model": language_model.identity,
            "task": [identity_of(task.renderer.task), task.rows.digest],
            "test": [identity_of(renderer.task), rows.digest],
            "data_seed": data_seed,
            "seed": seed,
        }
    )


def result_seed(settings: TuneSettings, data_seed: int, seed: int) -> int:
    """The number that stands for a run in results: the data seed, or both seeds where several are trained."""
    return data_seed if len(settings.train_seeds) == 1 else 10_000 * data_seed + seed


def finished_cell(
    settings: TuneSettings,
    language_model: LanguageModel,
    task: LoadedTask,
    *,
    test: str,
    tuned: TunedCell,
    label_seed: int,
    print_: str,
) -> FinishedCell:
    """A tuned cell as result and prediction records."""
    renderer, rows = task.tests[test]
    answers, words = tuned.tests[test], renderer.words
    tokenizer = language_model.tokenizer
    over = settings.train.predict_over
    chosen = answers.predicted(over)
    predictions: list[Prediction] = []
    for index, label in enumerate(chosen):
        nll = tuple(float(value) for value in answers.nll[index])
        # With the whole vocabulary as options an answer may be no label word at all: then the token is shown.
        told = words[label] if label >= 0 else str(tokenizer.convert_ids_to_tokens(int(answers.top[index])))
        predictions.append(
            Prediction(
                task=test,
                seed=label_seed,
                index=index,
                gold=words[answers.gold[index]],
                prediction=told,
                options=words,
                nll=nll,
                sum_nll=nll,
                n_tokens=(1,) * len(words),
                n_chars=tuple(map(len, words)),
                n_bytes=tuple(len(word.encode()) for word in words),
                null_sum_nll=(),
                null_n_tokens=(),
                fingerprint=print_,
            )
        )
    lost = lost_tokens(renderer, settings.tested(rows.test))
    result = Result(
        settings.setting, settings.method, language_model.spec.name, test, label_seed, settings.k, "accuracy",
        answers.accuracy(over), len(chosen), print_, cut_inputs=sum(map(bool, lost)), cut_tokens=sum(lost),
        shown_mean=float(settings.k), shown_least=settings.k,
    )  # fmt: skip
    return FinishedCell(result, tuple(predictions))
