"""Tasks of lm-evaluation-harness as a source of documents (`data=lm_eval`).

The harness's TaskManager finds and loads tasks, groups of tasks and tags, from its own collection or from a folder of
YAML files. Which documents a prompt shows is ours, or the harness's (`demonstrations=harness`). What a prompt looks
like, how answers are cut out and measured is the task's own (`icl.scoring.harness`); only where a method needs prompts
that no harness task makes (channel, PMI, ...) are documents written by ours, and tasks that cannot be are refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from metashot.base.errors import DataError, suggestion
from metashot.base.extras import import_extra
from metashot.base.identity import NoEffect
from metashot.data.kshot import k_shot_split
from metashot.data.rows.apart import kept_apart
from metashot.data.task import Example, TaskData, TaskType, Wording

From = Literal["drawn", "harness"]
"""Who chooses the documents that a prompt shows: we, or the task's own sampler."""
HARNESS_SEED = 1234
"""The harness's default seed of demonstrations."""
KINDS = ("multiple_choice", "generate_until", "loglikelihood", "loglikelihood_rolling")


@dataclass(frozen=True, slots=True)
class Document(Example):
    """A document as an example; the task that it belongs to reads `content`.

    Attributes:
        content: the document itself.
        unlike: why our own prompts cannot hold it; empty where they can.
    """

    content: Annotated[Any, NoEffect("what is read of it is in the example")] = field(
        default=None, compare=False, repr=False
    )
    unlike: Annotated[str, NoEffect("what is said of it")] = field(default="", compare=False)


class HarnessSource:
    """Tasks of lm-evaluation-harness by name.

    Args:
        names: tasks, groups and tags of the harness, or of `include_path`.
        include_path: a folder with task YAML files of one's own; a name that is there wins.
        demonstrations: `harness` lets the task's own sampler choose, for each document anew.
        fewshot_seed: of that sampler.
        same_demonstrations: the sampler chooses once, for all documents of a task.

    Raises:
        DataError: no names, or the package lm-eval is not installed.
    """

    name = "lm_eval"

    def __init__(
        self,
        names: Sequence[str],
        include_path: str | Path | None = None,
        demonstrations: From = "drawn",
        fewshot_seed: int = HARNESS_SEED,
        *,
        same_demonstrations: bool = False,
    ) -> None:
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
        self._draws_as = demonstrations
        self._seed, self._same = fewshot_seed, same_demonstrations
        self._loaded: dict[str, Mapping[str, Any]] = {}
        self._tasks: dict[str, HarnessTask] = {}
        self.groups: dict[str, Any] = {}
        """The groups among the names, and theirs: lm-eval's `Group` by name, known once `tasks` was called."""

    def tasks(self) -> list[str]:
        """The tasks that were asked for, those of groups and tags one by one."""
        return self.members(self._names)

    def members(self, names: Sequence[str]) -> list[str]:
        """Tasks of some names, in order, each once.

        Raises:
            DataError: a name that the harness does not know, or that cannot be loaded.
        """
        return list(dict.fromkeys(task for name in names for task in self._load(name)))

    def task(self, name: str) -> HarnessTask:
        """One task.

        Raises:
            DataError: see `members`, or a kind of task that no text model is asked.
        """
        if name not in self._tasks:
            tasks = next((found for found in self._loaded.values() if name in found), None)
            tasks = self._load(name) if tasks is None else tasks
            if name not in tasks:
                raise DataError("data.tasks", f"{name!r} is a group", f"name a member: {', '.join(tasks)}")
            self._tasks[name] = HarnessTask(name, tasks[name])
        return self._tasks[name]

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One evaluation cell: k documents of the few-shot split by the seed, and the evaluated split.

        A document is left out of its own demonstrations.

        Raises:
            DataError: a task that the harness does not know or cannot load; k above what its few-shot split holds.
        """
        found = self.task(task)
        k = found.shots(k)
        if k and self._draws_as == "harness":
            return self._by_harness(found, k, seed, split)
        size = len(found.pool)
        if k > size:
            raise DataError(
                "k",
                f"task {task!r} has {size} examples to draw demonstrations from, k={k} asked",
                f"set k={size} or less",
            )
        chosen = k_shot_split(size, k=k, seed=seed)
        test = found.written(found.pool, chosen.dev) if split == "dev" else found.test
        data = found.data(seed, found.written(found.pool, chosen.train), test)
        return kept_apart(data, lambda: self.pool(task, seed=seed))

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The few-shot split in the shuffled order of `seed`."""
        found = self.task(task)
        order = k_shot_split(len(found.pool), k=min(size, len(found.pool)), seed=seed).train
        return list(found.written(found.pool, order))

    def let_draw(self, task: HarnessTask) -> None:
        """Have a task, which asks no sampler, draw its demonstrations by itself.

        Raises:
            DataError: others were chosen for it.
        """
        if self._draws_as != "harness":
            raise DataError(task.name, "chooses its demonstrations by itself", "use demonstrations=harness")
        task.task.set_fewshot_seed(self._seed)

    def _by_harness(self, task: HarnessTask, k: int, seed: int, split: str) -> TaskData:
        if split != "test":
            raise DataError("split", f"is {split!r}, with demonstrations=harness", "use split=test")
        shown = tuple(tuple(map(task.document, row)) for row in task.draw(k, self._seed, same=self._same))
        if len(set(map(tuple, shown))) == 1:
            return task.data(seed, shown[0], task.test)
        return replace(task.data(seed, (), task.test), neighbours=shown)

    def _load(self, name: str) -> Mapping[str, Any]:
        """lm-eval's tasks of a name, by their own names."""
        if name not in self._loaded:
            manager = self._manager_of(name)
            with _said(name), _seeded():
                loaded = manager.load([name])
            self.groups |= loaded.get("groups") or {}
            self._loaded[name] = loaded["tasks"]
        return self._loaded[name]

    def _manager_of(self, name: str) -> Any:
        """Who knows a name: the folder of one's own, or the whole collection, which takes seconds to find."""
        own = self._own_manager
        if own is not None and name in own.all_subtasks:
            return own
        if own is not None and name in own.all_tasks and self._is_whole(name, own):
            return own
        if name not in self._manager.all_tasks:
            raise _unknown(name, self._manager)
        return self._manager

    @staticmethod
    def _is_whole(name: str, manager: Any) -> bool:
        """Whether a folder holds all that a group or tag of it names."""
        members: Any = (manager.task_index[name].cfg or {}).get("task") or ()
        named = [one if isinstance(one, str) else one.get("task", one.get("group", "")) for one in members]
        return all(isinstance(one, str) and one in manager.all_tasks for one in named)

    @cached_property
    def _own_manager(self) -> Any:
        if self._include_path is None:
            return None
        return _task_manager()(include_path=str(self._include_path), include_defaults=False)

    @cached_property
    def _manager(self) -> Any:
        """All tasks of the harness; finding them takes seconds, so only names that are not one's own ask for it."""
        return _task_manager()(include_path=None if self._include_path is None else str(self._include_path))


class HarnessTask:
    """One task: its documents as examples.

    Args:
        name: how results call it.
        task: lm-eval's `ConfigurableTask`.

    Raises:
        DataError: a kind of task that no text model is asked, or that runs code.
    """

    def __init__(self, name: str, task: Any) -> None:
        self.name, self.task, self.config = name, task, task.config
        own_command = "python -m metashot.harness run --model metashot"
        if self.config.output_type not in KINDS:
            raise DataError(name, f"is a {self.config.output_type} task", "leave it out of data.tasks")
        if not hasattr(task, "fewshot_cfg"):
            raise DataError(name, "is written in Python, without a config", f"use {own_command}")
        if getattr(task, "MULTIMODAL", False):
            raise DataError(name, "asks about images or sounds", "leave it out of data.tasks")
        if getattr(task, "UNSAFE_CODE", False):
            raise DataError(
                name, "runs code that a model wrote", f"use {own_command} --confirm_run_unsafe_code"
            )
        self._written: dict[int, Document] = {}

    def shots(self, k: int) -> int:
        """Demonstrations for k asked: none where the task's config says `num_fewshot: 0`, which the harness keeps."""
        return 0 if self.config.num_fewshot == 0 else k

    @cached_property
    def documents(self) -> Sequence[Any]:
        """The evaluated documents, in order.

        Raises:
            DataError: there are none.
        """
        with _said(self.name), _seeded():
            found = list(self.task.eval_docs)
        if not found:
            raise DataError(
                self.name,
                "has no document to evaluate",
                "look at its YAML file: test_split, validation_split",
            )
        return found

    @cached_property
    def pool(self) -> Sequence[Any]:
        """The documents that may be shown; none where only the evaluated split is left."""
        task, fewshot = self.task, self.task.fewshot_cfg
        with _said(self.name), _seeded():
            if fewshot.split is not None or fewshot.samples is not None:
                return list(task.fewshot_docs())
            if task.has_training_docs():
                return list(task.training_docs())
            if task.has_validation_docs() and task.has_test_docs():
                return list(task.validation_docs())
        return []

    @cached_property
    def test(self) -> tuple[Document, ...]:
        """The evaluated documents as examples."""
        return tuple(map(self._without_blank, self._as_they_are))

    @cached_property
    def _as_they_are(self) -> Sequence[Document]:
        with _said(self.name):
            return [self._document(content) for content in self.documents]

    @cached_property
    def _blank(self) -> str:
        """White space that every input ends with; the harness scores it together with the answer."""
        blanks = {one.input[len(one.input.rstrip()) :] for one in self._as_they_are}
        return blanks.pop() if len(blanks) == 1 else ""

    def _without_blank(self, one: Document) -> Document:
        return replace(one, input=one.input.removesuffix(self._blank)) if self._blank else one

    def written(self, documents: Sequence[Any], places: Sequence[int]) -> tuple[Document, ...]:
        """Some of the documents as examples."""
        return tuple(self.document(documents[place]) for place in places)

    def document(self, content: Any) -> Document:
        """A document as an example: what it asks, its choices, and the right answers.

        Raises:
            DataError: the task's templates cannot read it.
        """
        if id(content) not in self._written:  # which the example keeps alive
            with _said(self.name):
                self._written[id(content)] = self._without_blank(self._document(content))
        return self._written[id(content)]

    def data(self, seed: int, shown: tuple[Document, ...], test: tuple[Document, ...]) -> TaskData:
        """A cell with these demonstrations and test rows."""
        kind = TaskType.MULTI_CHOICE if test[0].options else TaskType.FREE_FORM
        between = self._blank + self.config.target_delimiter
        wording = Wording(self._description(test[0]), between, self.config.fewshot_delimiter)
        return TaskData(
            self.name, seed, kind, shown, test, wording=wording, only_by_task=self._unlike(test, shown)
        )

    def draw(self, k: int, seed: int, *, same: bool) -> list[list[Any]]:
        """What the task's own sampler chooses for each evaluated document, in their order.

        Args:
            k: how many.
            seed: of the sampler.
            same: it chooses once; a document that is among the chosen sees the next one in its place.

        Raises:
            DataError: the sampler has too few documents.
        """
        fewshot, sampler = self.task.fewshot_cfg, self.task.sampler
        own = fewshot.split == self.config.test_split
        self.task.set_fewshot_seed(seed)
        try:
            if same:
                drawn = list(sampler.sample(n=k + own))
                return [[one for one in drawn if not own or one != doc][:k] for doc in self.documents]
            return [
                list(sampler.sample(n=k, eval_doc=doc if own else None)) for doc in self.documents
            ]  # fmt: skip
        except (ValueError, AssertionError) as error:
            raise DataError(
                "k", f"the sampler of {self.name!r} cannot draw k={k}: {error}", "lower k"
            ) from None

    def _description(self, document: Document) -> str:
        with _said(self.name):
            return self.task.resolve_field(document.content, self.config.description) or ""

    def _document(self, content: Any) -> Document:
        task, name = self.task, self.name
        text, target = self._texts(content)
        choices = task.doc_to_choice(content) if self.config.doc_to_choice is not None else None
        options = tuple(map(str, choices or ()))
        if task.multiple_input:  # The choices are inputs, the target is their common continuation.
            right = options[text] if 0 <= text < len(options) else ""
            unlike = "puts its choices into the input, with one common continuation"
            return Document(name, str(target), right, options, content=content, unlike=unlike)
        if self.config.output_type != "multiple_choice":
            target = options[target] if options and isinstance(target, int) else target
            answers = tuple(map(str, target)) if isinstance(target, list) else (str(target),)
            unlike = "" if answers else "has no answer"
            return Document(
                name, str(text), (*answers, "")[0], references=answers[1:], content=content, unlike=unlike
            )
        golds = target if isinstance(target, list) else [target]
        right = [options[one] if isinstance(one, int) and 0 <= one < len(options) else one for one in golds]
        wrong = next((one for one in right if not isinstance(one, str) or one not in options), None)
        unlike = ""
        if not options:
            unlike = "has no choices"
        elif wrong is not None:
            unlike = f"has the answer {wrong!r}, of {len(options)} choices"
        elif len(right) > 1:
            unlike = f"has several right answers: {target!r}"
        elif len(set(options)) < len(options):
            unlike = f"has a choice twice: {list(options)}"
        answers = (*(str(one) for one in right), "")
        return Document(
            name, str(text), answers[0], options, references=answers[1:-1], content=content, unlike=unlike
        )

    def _texts(self, content: Any) -> tuple[Any, Any]:
        """(text, target); by the templates of demonstrations where those of questions cannot read a document."""
        task, fewshot = self.task, self.task.fewshot_cfg
        if self.config.output_type == "loglikelihood_rolling":
            return "", task.doc_to_target(content)
        try:
            return task.doc_to_text(content), task.doc_to_target(content)
        except Exception:
            if (
                fewshot.doc_to_text == self.config.doc_to_text
                and fewshot.doc_to_target == self.config.doc_to_target
            ):
                raise
            return (
                task.doc_to_text(content, fewshot.doc_to_text),
                task.doc_to_target(content, fewshot.doc_to_target),
            )

    def _unlike(self, test: Sequence[Document], shown: Sequence[Document]) -> str:
        """Why our own prompts cannot hold the task; empty where they can."""
        config = self.config
        for place, one in enumerate(test):
            if one.unlike:
                return f"{one.unlike} (document {place})"
        if config.output_type not in KINDS[:2]:
            return f"is a {config.output_type} task"
        reasons = {
            "scores answers by a rule of its own (process_results)": config.process_results is not None,
            "puts words in front of every answer (gen_prefix)": bool(config.gen_prefix),
            "writes its demonstrations otherwise than its questions (fewshot_config)": self._shows_otherwise,
            "has a description that differs between documents": self._descriptions(test) > 1,
            "has a demonstration that our prompts cannot hold": any(one.unlike for one in shown),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _descriptions(self, test: Sequence[Document]) -> int:
        text = self.config.description or ""
        fixed = "{" not in text and not any(text in one.content for one in test[:1])
        return 1 if fixed else len({self._description(one) for one in test})

    @cached_property
    def _shows_otherwise(self) -> bool:
        names = (
            "doc_to_text",
            "doc_to_choice",
            "doc_to_target",
            "gen_prefix",
            "target_delimiter",
            "fewshot_delimiter",
        )
        return any(getattr(self.task.fewshot_cfg, name) != getattr(self.config, name) for name in names)


def _unknown(name: str, manager: Any) -> DataError:
    base, _, style = name.partition("@")
    if style and base in manager.all_tasks:
        return DataError(
            "data.tasks",
            f"{name!r} asks for a format, which lm-eval {version('lm_eval')} does not have",
            f"name {base!r}, or install a version that has task@format",
        )
    hint = suggestion(name, manager.all_tasks)
    if len(manager.all_tasks) >= 40 and not hint.startswith("did you mean"):
        hint = "`lm-eval ls tasks` lists them; data.include_path adds your own"
    return DataError("data.tasks", f"lm-evaluation-harness knows no task {name!r}", hint)


def _task_manager() -> Callable[..., Any]:
    return import_extra("lm_eval.tasks", "data", "TaskManager")


@contextmanager
def _seeded() -> Generator[None]:
    """Python's and numpy's generators as the harness seeds them before it loads tasks, which some draw from."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (the harness seeds these)
    random.seed(0)
    np.random.seed(HARNESS_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


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
