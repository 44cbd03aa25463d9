"""The five meta-task formats as data: construction, counts, verbalizers and templates from `formats/*.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from metashot.base.errors import ConfigError, DataError, suggestion
from metashot.base.yaml_files import read_yaml
from metashot.metaprompt.batch import PromptExample
from metashot.metaprompt.meta.drawing.draws import DRAWS, Record
from metashot.metaprompt.meta.drawing.format_names import FORMAT_FOLDER, format_names
from metashot.metaprompt.template import (
    ContextLimits,
    Fill,
    Segment,
    bare_id,
    parse_segments,
    render,
    sentinel_id,
    word_id,
)
from metashot.metaprompt.truncation import CutRule


@dataclass(frozen=True, slots=True)
class TaskFormat:
    """One meta-task format; the fields are the keys of its YAML file.

    Attributes:
        name: of the format.
        draw: construction, a key of `draws.DRAWS`.
        support: support examples of a task.
        query: query examples of a task.
        support_batch: released batch of the support loop (kept for the cost model; the loss is a plain mean).
        query_batch: query examples that share one mixing weight.
        options: options of a choice, 0 for a pair.
        verbalizers: answers by label.
        released_pieces: `bare` or `word_initial` pieces in the released code.
        closing_sentinel: released support targets end with a second sentinel.
        slot_tokens: most tokens by slot.
        truncation: how an over-long context is cut.
        released_truncation: how the released code cuts it.
        counted_tokens: template tokens counted by the proportional cut.
        ending_segments: segments that `keep_ending` keeps.
        encoder_decoder: template for T5-like models.
        decoder_only: template for GPT-like models.
    """

    name: str
    draw: str
    support: int
    query: int
    support_batch: int
    query_batch: int
    options: int
    verbalizers: tuple[str, ...]
    released_pieces: str
    closing_sentinel: bool
    slot_tokens: dict[str, int]
    truncation: CutRule
    released_truncation: CutRule
    counted_tokens: int
    ending_segments: int
    encoder_decoder: tuple[Segment, ...]
    decoder_only: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class RenderRules:
    """Choices that hold for all formats.

    Attributes:
        max_tokens: most context tokens, soft prompt not counted (412 in the released code).
        bare_pieces: label pieces as the released code looks them up.
        released_truncation: cut as the released code does.
        third_position: supervise the closing sentinel of support targets.
    """

    max_tokens: int
    bare_pieces: bool
    released_truncation: bool
    third_position: bool


def load_format(name: str) -> TaskFormat:
    """A format by name, or from a YAML file of your own.

    Raises:
        ConfigError: unknown name.
        DataError: a key is missing, unknown or outside its rule.
    """
    own = Path(name)
    if own.suffix != ".yaml" and name not in format_names():
        raise ConfigError("supmer.formats", f"unknown format {name!r}", suggestion(name, format_names()))
    path = own if own.suffix == ".yaml" else FORMAT_FOLDER / f"{name}.yaml"
    file = read_yaml(path)
    wanted = set(TaskFormat.__dataclass_fields__)
    if set(file.content) != wanted:
        odd = sorted(set(file.content) ^ wanted)
        raise DataError(
            str(path), f"missing or unknown keys: {', '.join(odd)}", "compare with the files of format_files"
        )
    return _parse(str(path), dict(file.content))


def _parse(where: str, row: dict[str, Any]) -> TaskFormat:
    if row["draw"] not in DRAWS:
        raise DataError(where, f"unknown draw {row['draw']!r}", suggestion(row["draw"], DRAWS))
    if row["options"] and len(row["verbalizers"]) != row["options"]:
        raise DataError(
            where, f"{row['options']} options but verbalizers {row['verbalizers']}", "give one per option"
        )
    for key in ("truncation", "released_truncation"):
        row[key] = CutRule(row[key])
    row["verbalizers"] = tuple(row["verbalizers"])
    for key in ("encoder_decoder", "decoder_only"):
        row[key] = parse_segments(row[key], row["options"], f"{where}: {key}")
    return TaskFormat(**row)


def resize(format_: TaskFormat, examples_per_set: int | None) -> TaskFormat:
    """The format with other counts of support and query examples; None leaves it as its file says."""
    if examples_per_set is None:
        return format_
    if examples_per_set < max(2, format_.options):
        raise ConfigError(
            "supmer.examples_per_set",
            f"{examples_per_set} examples cannot hold every answer of {format_.name}",
            f"give at least {max(2, format_.options)}",
        )
    return replace(format_, support=examples_per_set, query=examples_per_set)


@dataclass(frozen=True, slots=True)
class FormatRenderer:
    """A format bound to a tokenizer: records to ids."""

    format: TaskFormat
    tokenizer: PreTrainedTokenizerBase
    rules: RenderRules
    is_seq2seq: bool
    label_ids: tuple[int, ...]

    def context(self, record: Record) -> tuple[int, ...]:
        """Context ids of one record."""
        format_ = self.format
        return render(
            self.tokenizer,
            format_.encoder_decoder if self.is_seq2seq else format_.decoder_only,
            Fill(record.slots, record.options, self.label_ids),
            ContextLimits(
                self.rules.max_tokens,
                format_.slot_tokens,
                format_.released_truncation if self.rules.released_truncation else format_.truncation,
                format_.ending_segments,
                format_.counted_tokens,
            ),
            spaced=not self.is_seq2seq,
        )

    def example(self, record: Record, *, support: bool) -> PromptExample:
        """Context and target ids; only support targets may carry the closing sentinel."""
        answer = self.label_ids[record.label]
        if not self.is_seq2seq:
            return PromptExample(self.context(record), (answer,))
        target = (sentinel_id(self.tokenizer, 0), answer)
        if support and self.rules.third_position and self.format.closing_sentinel:
            target = (*target, sentinel_id(self.tokenizer, 1))
        return PromptExample(self.context(record), target)

    def examples(self, records: Sequence[Record], *, support: bool) -> tuple[PromptExample, ...]:
        """All of `records`."""
        return tuple(self.example(record, support=support) for record in records)


def bind_format(
    format_: TaskFormat, tokenizer: PreTrainedTokenizerBase, rules: RenderRules, *, is_seq2seq: bool
) -> FormatRenderer:
    """Look up the label pieces once.

    Raises:
        DataError: a verbalizer that is not one token (unless `rules.bare_pieces`).
    """
    bare = rules.bare_pieces and format_.released_pieces == "bare"
    label_ids = tuple(
        bare_id(tokenizer, word) if bare else word_id(tokenizer, word, f"formats/{format_.name}.yaml")
        for word in format_.verbalizers
    )
    return FormatRenderer(format_, tokenizer, rules, is_seq2seq, label_ids)
