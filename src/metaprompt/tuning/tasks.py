"""Downstream tasks of prompt tuning as data: patterns and verbalizers from `tasks/*.yaml`, rows from files or the hub."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from metashot.base.errors import ConfigError, DataError, suggestion
from metashot.base.extras import import_extra
from metashot.base.json_text import digest_of
from metashot.base.yaml_files import read_yaml
from metashot.data.recipes.rows import BadRow, Dropped, text_of
from metashot.data.recipes.twins import known_value
from metashot.data.sources.tables import ENDINGS, numbered_rows, row_place
from metashot.metaprompt.batch import PromptExample
from metashot.metaprompt.template import (
    ContextLimits,
    Fill,
    Segment,
    parse_segments,
    pattern_segments,
    render,
    sentinel_id,
    word_id,
)
from metashot.metaprompt.truncation import CutRule

Row = Mapping[str, Any]
_FURTHER = "further_patterns"
_TEMPLATES = ("encoder_decoder", "decoder_only")
_PATTERN_KEYS = ("verbalizers", "released_verbalizers", "strip_punctuation", "pattern", *_TEMPLATES)
_REQUIRED = ("name", "verbalizers")


@dataclass(frozen=True, slots=True)
class PromptTask:
    """One downstream task with one of its patterns; the fields are the keys of its YAML file.

    A file needs `name`, `verbalizers` and `pattern` (one line for either kind of model, `'{text} It was {answer}.'`),
    or the two templates in the place of `pattern`. It may also list `further_patterns`: what such a pattern leaves
    out is as in pattern 0, but a pattern with a template for one kind of model only has none for the other.

    Attributes:
        name: of the task, and of its data folder.
        verbalizers: label words in the order of their numbers.
        labels: label names in the same order; the verbalizers by default.
        released_verbalizers: the words of the released code (they differ for boolq); the verbalizers by default.
        fields: keys of a row that hold text; those that the templates name by default.
        inline: fields written into template texts as `{field}`.
        strip_punctuation: fields that lose their final punctuation.
        hub: dataset id, config and splits, or None.
        encoder_decoder: template for T5-like models, empty where there is none.
        decoder_only: template for GPT-like models, empty where there is none; the answer follows it.
        chosen: number of the pattern.
    """

    name: str
    verbalizers: tuple[str, ...]
    labels: tuple[str, ...]
    released_verbalizers: tuple[str, ...]
    fields: tuple[str, ...]
    inline: tuple[str, ...]
    strip_punctuation: tuple[str, ...]
    hub: dict[str, str] | None
    encoder_decoder: tuple[Segment, ...]
    decoder_only: tuple[Segment, ...]
    chosen: int


def task_names() -> list[str]:
    """Names of the embedded task files."""
    folder = files("metashot.metaprompt.tuning") / "task_files"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_prompt_task(name: str, pattern: int = 0) -> PromptTask:
    """A task by name, or from a YAML file of your own.

    Args:
        name: of the task, or the file.
        pattern: 0 for the pattern at the file's top level, 1 and up for its `further_patterns`.

    Raises:
        ConfigError: unknown name or pattern.
        DataError: a missing or unknown key, or labels and verbalizers that do not match.
    """
    own = Path(name)
    if own.suffix != ".yaml" and name not in task_names():
        raise ConfigError("tuning.tasks", f"unknown task {name!r}", suggestion(name, task_names()))
    path = (
        own
        if own.suffix == ".yaml"
        else Path(str(files("metashot.metaprompt.tuning") / "task_files" / f"{name}.yaml"))
    )
    row = _with_pattern(dict(read_yaml(path).content), pattern, path)
    known = {*PromptTask.__dataclass_fields__, "pattern"} - {"chosen"}
    for key in row:
        if key not in known:
            raise DataError(str(path), f"unknown key {key!r}", suggestion(str(key), known))
    missing = [key for key in _REQUIRED if not row.get(key)]
    if missing or not any(row.get(key) for key in ("pattern", *_TEMPLATES)):
        raise DataError(
            str(path),
            f"no {', '.join(missing or ['pattern'])}",
            "a task needs name, verbalizers and pattern: '{text} It was {answer}.'",
        )
    templates = _templates(row, path)
    lists = {key: _words(row.get(key)) for key in ("inline", "strip_punctuation")}
    words = _words(row["verbalizers"])
    named = [s.value for template in templates for s in template if s.kind in ("slot", "tight")]
    labels = _words(row.get("labels")) or words
    released = _words(row.get("released_verbalizers")) or words
    if not len(labels) == len(words) == len(released):
        raise DataError(
            str(path), f"{len(labels)} labels but {len(words)} verbalizers", "give one verbalizer per label"
        )
    for key, given in (("verbalizers", words), ("released_verbalizers", released), ("labels", labels)):
        if twice := next((word for word in given if given.count(word) > 1), None):
            raise DataError(str(path), f"{key} holds {twice!r} twice", "give every label a word of its own")
    fields = _words(row.get("fields")) or tuple(dict.fromkeys([*named, *lists["inline"]]))
    return PromptTask(
        str(row["name"]), words, labels, released, fields, lists["inline"], lists["strip_punctuation"],
        row.get("hub"), *templates, pattern,
    )  # fmt: skip


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value or ()))


def _templates(row: Mapping[str, Any], path: Path) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Both templates; the file's own go before those of its `pattern`."""
    encoder_decoder, decoder_only = (
        parse_segments(row.get(key) or (), 0, f"{path}: {key}") for key in _TEMPLATES
    )
    if row.get("pattern"):
        written = pattern_segments(str(row["pattern"]), f"{path}: pattern")
        encoder_decoder, decoder_only = encoder_decoder or written[0], decoder_only or written[1]
    return encoder_decoder, decoder_only


def _with_pattern(content: dict[str, Any], pattern: int, path: Path) -> dict[str, Any]:
    """The file's content with the keys of the chosen pattern on top, without the list of patterns."""
    further = content.pop(_FURTHER, None) or []
    if not 0 <= pattern <= len(further):
        known = f"0 to {len(further)}" if further else "0 only"
        raise ConfigError(
            "tuning.pattern", f"task {content.get('name')} has no pattern {pattern}", f"give {known}"
        )
    if pattern == 0:
        return content
    chosen = dict(further[pattern - 1])
    odd = sorted(set(chosen) - set(_PATTERN_KEYS))
    if odd:
        raise DataError(
            f"{path}: {_FURTHER}", f"unknown keys: {', '.join(odd)}", f"known: {', '.join(_PATTERN_KEYS)}"
        )
    if "verbalizers" in chosen:
        chosen.setdefault("released_verbalizers", chosen["verbalizers"])
    if any(key in chosen for key in ("pattern", *_TEMPLATES)):
        content = {key: value for key, value in content.items() if key not in ("pattern", *_TEMPLATES)}
    return content | chosen


@dataclass(frozen=True, slots=True)
class TaskRows:
    """Rows of a task: training pool, test set and a digest of both."""

    train: tuple[Row, ...]
    test: tuple[Row, ...]
    digest: str


def load_rows(task: PromptTask, source: str, root: str | None) -> TaskRows:
    """All rows of a task.

    Args:
        task: the task.
        source: `folder` (tables `<root>/<task>/{train,test}.json`, `.csv`, `.parquet` and so on) or `hub`.
        root: the folder.

    Raises:
        DataError: a file, a field or a label is missing.
        ConfigError: the task is not on the hub, or no folder is given.
    """
    if source == "folder":
        if not root:
            raise ConfigError("tuning.data_root", "is not set", "give the folder of the task folders")
        folder = Path(root).expanduser() / task.name
        train, test = (_rows(task, *_table(folder, split)) for split in ("train", "test"))
    else:
        train, test = (_rows(task, place, rows) for place, rows in _hub(task))
    return TaskRows(train, test, digest_of([list(map(dict, train)), list(map(dict, test))]))


def _table(folder: Path, split: str) -> tuple[Callable[[int], str], Iterator[tuple[int, Row]]]:
    """Where a row stands, by its number, and the numbered rows of `<folder>/<split>.json` or another table."""
    named = (folder / f"{split}{ending}" for ending in (".json", *ENDINGS))
    path = next(filter(Path.is_file, named), None)
    if path is None:
        raise DataError(
            str(folder / f"{split}.json"),
            "cannot be read: no such file",
            f"or {split}.csv, .parquet and so on",
        )
    return lambda number: row_place(path, number), numbered_rows(path)


def _rows(task: PromptTask, place: Callable[[int], str], rows: Iterable[tuple[int, Row]]) -> tuple[Row, ...]:
    """Rows with the texts of the task's fields and the number of their label, which its name may stand for."""
    n_labels = len(task.labels)
    names = ", ".join(task.labels)
    label_of = known_value(
        (*range(n_labels), *task.labels), "label", f"give a number from 0 to {n_labels - 1} ({names})"
    )
    made: list[Row] = []
    for number, row in rows:
        missing = [key for key in (*task.fields, "label") if key not in row]
        if missing:
            raise DataError(place(number), f"no {', '.join(missing)}", "every row needs its fields")
        try:
            label = label_of(row["label"])
            texts = {key: text_of(row[key], key) for key in task.fields}
        except BadRow as bad:
            raise DataError(place(number), bad.problem, bad.remedy) from None
        except Dropped as dropped:
            raise DataError(place(number), dropped.reason, "fill it, or take the row out") from None
        made.append(texts | {"label": task.labels.index(label) if isinstance(label, str) else label})
    return tuple(made)


def _hub(task: PromptTask) -> Iterator[tuple[Callable[[int], str], Iterator[tuple[int, Row]]]]:
    if task.hub is None:
        raise ConfigError(
            "tuning.data_source", f"task {task.name!r} is not on the hub", "set tuning.data_source=folder"
        )
    datasets = import_extra("datasets", "tuning.data_source")
    try:
        data: Any = datasets.load_dataset(task.hub["path"], task.hub["config"])
    except Exception as error:
        raise DataError(
            f"task {task.name}", f"cannot open {task.hub['path']!r}: {error}", "check the network"
        ) from error
    for split in ("train", "test"):
        name = task.hub[split]
        yield lambda number, name=name: f"{task.name}, {name}, row {number}", enumerate(data[name], start=1)


def sample_per_label(labels: Sequence[int], k: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of K training and K development examples per label.

    The pool is shuffled by `seed`; of each label the first n = min(count // 2, k) train and the next n are for
    development, label by label. Source: docs/methods.md, prompt tuning (as `datasets.shuffle(seed)` orders rows).
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    train: list[int] = []
    dev: list[int] = []
    for label in sorted(set(labels)):
        own = [int(index) for index in order if labels[index] == label]
        count = min(len(own) // 2, k)
        train += own[:count]
        dev += own[count : 2 * count]
    return train, dev


@dataclass(frozen=True, slots=True)
class TaskRenderer:
    """A task bound to a tokenizer: rows to ids."""

    task: PromptTask
    tokenizer: PreTrainedTokenizerBase
    limits: ContextLimits
    is_seq2seq: bool
    words: tuple[str, ...]
    label_ids: tuple[int, ...]

    def example(self, row: Row) -> PromptExample:
        """Context and target ids of one row."""
        task = self.task
        slots = {
            key: str(row[key]).rstrip(string.punctuation) if key in task.strip_punctuation else str(row[key])
            for key in task.fields
        }
        segments = task.encoder_decoder if self.is_seq2seq else task.decoder_only
        for key in task.inline:
            segments = tuple(
                replace(s, value=s.value.replace(f"{{{key}}}", slots[key])) if s.kind == "text" else s
                for s in segments
            )
        fill = Fill(slots, (), self.label_ids)
        context = render(self.tokenizer, segments, fill, self.limits, spaced=not self.is_seq2seq)
        answer = self.label_ids[row["label"]]
        return PromptExample(
            context, (sentinel_id(self.tokenizer, 0), answer) if self.is_seq2seq else (answer,)
        )

    def shown(self, row: Row) -> str:
        """The context of one row as text, as the model reads it after its learned prompt."""
        return str(self.tokenizer.decode(list(self.example(row).input_ids)))


def bind_task(
    task: PromptTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_seq2seq: bool,
    max_tokens: int,
    released_words: bool,
    released_truncation: bool,
) -> TaskRenderer:
    """Look up the label words once.

    Raises:
        ConfigError: the chosen pattern has no template for this kind of model.
        DataError: a verbalizer that is not one token.
    """
    if not (task.encoder_decoder if is_seq2seq else task.decoder_only):
        kind, key = ("an encoder-decoder", _TEMPLATES[0]) if is_seq2seq else ("a decoder-only", _TEMPLATES[1])
        raise ConfigError(
            "tuning.pattern",
            f"pattern {task.chosen} of task {task.name} has no template for {kind} model",
            f"choose another pattern, or give this one a template {key!r} in a file of your own",
        )
    words = task.released_verbalizers if released_words else task.verbalizers
    ids = tuple(word_id(tokenizer, word, f"task {task.name}") for word in words)
    rule = CutRule.LONGER_SIDE if released_truncation else CutRule.LONGEST_SLOT
    return TaskRenderer(task, tokenizer, ContextLimits(max_tokens, {}, rule), is_seq2seq, words, ids)
