"""Tasks of lm-evaluation-harness as a source of examples (`data=lm_eval`).

The harness's TaskManager finds and loads a task, from its own collection or from a folder of YAML files, and
`doc_to_text`, `doc_to_choice` and `doc_to_target` say what an example is. Everything after that is ours: the k-shot
protocol draws demonstrations from the task's few-shot, training or validation split.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from metashot.base.errors import DataError, suggestion
from metashot.base.extras import import_extra
from metashot.data.kshot import k_shot_split
from metashot.data.task import Example, TaskData, TaskType, Wording

_SHOWN_MEMBERS = 8


@dataclass(frozen=True, slots=True)
class HarnessExamples:
    """One task, converted.

    Attributes:
        pool: demonstrations are drawn from these.
        test: the evaluated split, in order.
        wording: how the task joins its parts.
        kind: multiple choice, whose metric is the harness's accuracy, or free-form.
    """

    pool: tuple[Example, ...]
    test: tuple[Example, ...]
    wording: Wording
    kind: TaskType


class HarnessSource:
    """Tasks of lm-evaluation-harness by name.

    Args:
        names: tasks of the harness, or of `include_path`.
        include_path: a folder with task YAML files of one's own; a name that is there wins.

    Raises:
        DataError: no names, or the package lm-eval is not installed.
    """

    name = "lm_eval"

    def __init__(self, names: Sequence[str], include_path: str | Path | None = None) -> None:
        if not names:
            raise DataError("data.tasks", "is not set", "name tasks of the harness: 'data.tasks=[arc_easy]'")
        self._names = tuple(names)
        self._include_path = None if include_path is None else Path(include_path).expanduser()
        if self._include_path is not None and not self._include_path.is_dir():
            raise DataError(
                "data.include_path",
                f"no folder {str(include_path)!r}",
                "give the folder of the task YAML files",
            )
        self._examples: dict[str, HarnessExamples] = {}

    def tasks(self) -> list[str]:
        """The names that were asked for."""
        return list(self._names)

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One evaluation cell: k documents of the few-shot split by the seed, and the evaluated split.

        Raises:
            DataError: a task that the harness does not know, cannot load, or that cannot be converted; k above what
                its few-shot split holds.
        """
        found = self._converted(task)
        if k > len(found.pool):
            raise DataError(
                "k",
                f"task {task!r} has {len(found.pool)} examples to draw demonstrations from, k={k} asked",
                f"set k={len(found.pool)} or less",
            )
        chosen = k_shot_split(len(found.pool), k=k, seed=seed)
        shown = tuple(found.pool[index] for index in chosen.train)
        test = tuple(found.pool[index] for index in chosen.dev) if split == "dev" else found.test
        return TaskData(task, seed, found.kind, shown, test, wording=found.wording)

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The few-shot split in the shuffled order of `seed`."""
        pool = self._converted(task).pool
        return [pool[i] for i in k_shot_split(len(pool), k=min(size, len(pool)), seed=seed).train]

    def _converted(self, task: str) -> HarnessExamples:
        if task not in self._examples:
            self._examples[task] = convert_task(task, self._load(task))
        return self._examples[task]

    def _load(self, task: str) -> Any:
        manager = self._own_manager if self._own_manager and task in self._own_manager.all_tasks else None
        manager = manager or self._manager
        if task not in manager.all_tasks:
            raise DataError(
                "data.tasks",
                f"lm-evaluation-harness knows no task {task!r}",
                suggestion(task, manager.all_tasks)
                if len(manager.all_tasks) < 40
                else _nearest(task, manager),
            )
        with _said(task):
            loaded = manager.load([task])
        if loaded["groups"] or len(loaded["tasks"]) != 1:
            members = sorted(loaded["tasks"])
            more = ", ..." if len(members) > _SHOWN_MEMBERS else ""
            raise DataError(
                "data.tasks",
                f"{task!r} is a group of {len(members)} tasks",
                f"name its members: {', '.join(members[:_SHOWN_MEMBERS])}{more}",
            )
        return next(iter(loaded["tasks"].values()))

    @cached_property
    def _own_manager(self) -> Any:
        if self._include_path is None:
            return None
        return _task_manager()(include_path=str(self._include_path), include_defaults=False)

    @cached_property
    def _manager(self) -> Any:
        """All tasks of the harness; finding them takes seconds, so only names that are not one's own ask for it."""
        return _task_manager()()


def convert_task(name: str, task: Any) -> HarnessExamples:
    """The examples of a loaded harness task.

    Args:
        name: how results call it.
        task: lm-eval's `ConfigurableTask`.

    Raises:
        DataError: a kind of task that has no options and generates nothing, or whose choices stand in the input.
    """
    config = task.config
    kinds = ("multiple_choice", "generate_until")
    if config.output_type not in kinds:
        raise DataError(
            name,
            f"is a {config.output_type} task",
            f"only {' and '.join(kinds)} tasks become examples; leave it out",
        )
    convert = _choice_example if config.output_type == "multiple_choice" else _free_example
    with _said(name):
        pool_documents, test_documents = _documents(task)
        pool = tuple(convert(name, task, doc, place) for place, doc in enumerate(pool_documents))
        test = tuple(convert(name, task, doc, place) for place, doc in enumerate(test_documents))
    if not test:
        raise DataError(
            name, "has no document to evaluate", "look at its YAML file: test_split, validation_split"
        )
    # The harness scores the white space at an input's end together with the answer.
    blank = _common_blank([*pool, *test])
    wording = Wording(
        instruction=config.description or "",
        between=blank + config.target_delimiter,
        separator=config.fewshot_delimiter,
    )
    kind = TaskType.MULTI_CHOICE if test[0].options else TaskType.FREE_FORM
    return HarnessExamples(_without(blank, pool), _without(blank, test), wording, kind)


def _common_blank(examples: Sequence[Example]) -> str:
    """White space that every input ends with; nothing where they differ."""
    blanks = {example.input[len(example.input.rstrip()) :] for example in examples}
    return blanks.pop() if len(blanks) == 1 else ""


def _without(blank: str, examples: Sequence[Example]) -> tuple[Example, ...]:
    return tuple(replace(example, input=example.input.removesuffix(blank)) for example in examples)


def _documents(task: Any) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """(few-shot documents, evaluated documents); no few-shot documents where only the evaluated split is left."""
    evaluated = list(task.test_docs() if task.has_test_docs() else task.validation_docs())
    if task.fewshot_cfg.split is not None or task.fewshot_cfg.samples is not None:
        return list(task.fewshot_docs()), evaluated
    if task.has_training_docs():
        return list(task.training_docs()), evaluated
    if task.has_validation_docs() and task.has_test_docs():
        return list(task.validation_docs()), evaluated
    return [], evaluated


def _choice_example(name: str, task: Any, doc: Mapping[str, Any], place: int) -> Example:
    text, target = task.doc_to_text(doc), task.doc_to_target(doc)
    if not isinstance(text, str):
        raise DataError(
            name,
            "puts its choices into the input, with one common continuation",
            "leave it out of data.tasks",
        )
    options = tuple(str(choice) for choice in task.doc_to_choice(doc) or ())
    if not options:
        raise DataError(f"{name}, document {place}", "has no choices", "leave the task out of data.tasks")
    if isinstance(target, list):
        raise DataError(
            f"{name}, document {place}", f"has several right answers: {target!r}", "leave the task out"
        )
    if isinstance(target, int) and not 0 <= target < len(options):
        raise DataError(
            f"{name}, document {place}",
            f"has the answer {target}, of {len(options)} choices",
            "mend the task's YAML",
        )
    output = options[target] if isinstance(target, int) else str(target)
    if output not in options:
        raise DataError(
            f"{name}, document {place}",
            f"has the answer {output!r}, which is no choice",
            "mend the task's YAML",
        )
    return Example(name, text, output, options)


def _free_example(name: str, task: Any, doc: Mapping[str, Any], place: int) -> Example:
    target = task.doc_to_target(doc)
    answers = tuple(map(str, target)) if isinstance(target, list) else (str(target),)
    if not answers:
        raise DataError(f"{name}, document {place}", "has no answer", "mend the task's YAML")
    return Example(name, str(task.doc_to_text(doc)), answers[0], references=answers[1:])


def _nearest(task: str, manager: Any) -> str:
    hint = suggestion(task, manager.all_tasks)
    return (
        hint
        if hint.startswith("did you mean")
        else "`lm-eval ls tasks` lists them; data.include_path adds your own"
    )


def _task_manager() -> Any:
    return import_extra("lm_eval.tasks", "data", "TaskManager")


@contextmanager
def _said(task: str) -> Generator[None]:
    """Whatever the harness and `datasets` raise while they load, as one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        offline = any(
            word in text
            for word in ("offline", "Offline", "Couldn't", "couldn't find", "connect", "ConnectionError")
        )
        if "gated" in text:
            remedy = "ask for access on the hub, then log in: hf auth login"
        elif offline:
            remedy = "load it once where the hub can be reached, with the same HF_HOME"
        else:
            remedy = "look at the task's YAML file and its data"
        raise DataError(task, f"cannot be loaded: {type(error).__name__}: {text[:300]}", remedy) from error
