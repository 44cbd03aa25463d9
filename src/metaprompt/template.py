"""Templates as data: a list of segments that turns named texts into ids for either kind of model.

Segments are tokenized one by one and joined as ids, as the released code does. Kinds, one key each in YAML:
`slot` (the user's text), `tight` (the same without a space in front), `text` (template words), `piece` (one
vocabulary piece, glued to what stands before),
`label` (the option's letter), `pseudo` (a cluster's pseudo-token), `answer` (the sentinel), `side` (start of the
second side, for one truncation rule) and `each_option` (segments repeated for every option).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Any

from transformers import PreTrainedTokenizerBase

from metashot.base.errors import DataError
from metashot.metaprompt.truncation import (
    CutRule,
    Ids,
    cut_right,
    keep_ending,
    longer_side,
    longest_slot,
    proportional,
)

SENTINELS = ("<extra_id_0>", "<extra_id_1>")
_KINDS = ("slot", "tight", "text", "piece", "label", "pseudo", "answer", "side")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: its kind, and the text, slot name or option index that it carries."""

    kind: str
    value: str = ""
    option: int | None = None


def parse_segments(rows: Sequence[Mapping[str, Any]], options: int, where: str) -> tuple[Segment, ...]:
    """Segments of a YAML list, with `each_option` written out for `options` options.

    Raises:
        DataError: an unknown kind or a segment with more than one key.
    """
    segments: list[Segment] = []
    for row in rows:
        if len(row) != 1 or next(iter(row)) not in (*_KINDS, "each_option"):
            raise DataError(
                where, f"segment {dict(row)}", f"give one of {', '.join((*_KINDS, 'each_option'))}"
            )
        kind, value = next(iter(row.items()))
        if kind == "each_option":
            inner = parse_segments(value, 0, where)
            segments += [Segment(s.kind, s.value, index) for index in range(options) for s in inner]
        else:
            segments.append(Segment(kind, str(value)))
    return tuple(segments)


def pattern_segments(pattern: str, where: str) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Templates of a pattern in one line, for encoder-decoder and for decoder-only models.

    `{field}` stands for a text, `{answer}` for the answer. Where text or a field follows the answer, the decoder-only
    template is empty: such a model can only answer at the end.

    Raises:
        DataError: no field, a brace without its partner, or not one answer.
    """
    pieces: list[tuple[str, str | None]] = []
    try:
        for text, field, form, conversion in Formatter().parse(pattern):
            if form or conversion or field == "":
                raise ValueError("a field is {its name}")
            pieces.append((text, field))
    except ValueError as error:
        raise DataError(
            where, f"pattern {pattern!r}: {error}", "write for example '{text} It was {answer}.'"
        ) from error
    fields = [field for _, field in pieces if field not in (None, "answer")]
    answers = [place for place, (_, field) in enumerate(pieces) if field == "answer"]
    if not fields or len(answers) != 1:
        problem = "names no field" if not fields else "has two answers" if answers else "has no {answer}"
        raise DataError(
            where, f"pattern {pattern!r} {problem}", "write for example '{text} It was {answer}.'"
        )
    tail = pieces[answers[0] + 1 :]
    closed = any(field is not None or any(map(str.isalnum, text)) for text, field in tail)
    before = _written(pieces[: answers[0]], "")
    last = pieces[answers[0]][0].rstrip()
    decoder_only = () if closed else (*before, *([Segment("text", last)] if last else []))
    return _written(pieces, SENTINELS[0]), decoder_only


def _written(pieces: Sequence[tuple[str, str | None]], answer: str) -> tuple[Segment, ...]:
    """Segments of texts and the fields after them; `answer` is written into the text around it."""
    segments: list[Segment] = []
    waiting = ""
    for text, field in pieces:
        waiting += text
        if field == "answer":
            waiting += answer
        elif field is not None:
            kind = "slot" if waiting[-1:].isspace() or not (waiting or segments) else "tight"
            if waiting.strip():
                segments.append(Segment("text", waiting.rstrip() if kind == "slot" else waiting))
            segments.append(Segment(kind, field))
            waiting = ""
    if waiting.strip():
        segments.append(Segment("text", waiting))
    return tuple(segments)


def word_id(tokenizer: PreTrainedTokenizerBase, word: str, where: str) -> int:
    """The id of `word` as the start of a new word (`▁yes`, `Ġyes`), never `<unk>`.

    Raises:
        DataError: the word is not one token; its pieces are named.
    """
    shown: list[str] = []
    for text in (f" {word}", word):
        ids = tokenizer.encode(text, add_special_tokens=False)
        pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
        shown = shown or pieces
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id and pieces[0].lstrip("▁Ġ") == word:
            return ids[0]
    raise DataError(
        where,
        f"verbalizer {word!r} is {len(shown)} tokens for this tokenizer: {' '.join(shown)}",
        "choose a word that is one token",
    )


def bare_id(tokenizer: PreTrainedTokenizerBase, piece: str) -> int:
    """The id of a bare vocabulary piece, `<unk>` when there is none (what the released code looks up)."""
    found = tokenizer.convert_tokens_to_ids(piece)
    if isinstance(found, int):
        return found
    return tokenizer.unk_token_id if isinstance(tokenizer.unk_token_id, int) else 0


def sentinel_id(tokenizer: PreTrainedTokenizerBase, index: int) -> int:
    """The id of `<extra_id_{index}>`.

    Raises:
        DataError: the tokenizer has no sentinels.
    """
    if SENTINELS[index] not in tokenizer.get_vocab():
        raise DataError(
            "model",
            f"its tokenizer has no {SENTINELS[index]}",
            "use a T5 model for encoder-decoder templates",
        )
    return bare_id(tokenizer, SENTINELS[index])


@dataclass(frozen=True, slots=True)
class Fill:
    """What fills a template.

    Attributes:
        slots: texts by slot name.
        options: text (or cluster, for a pseudo-token) of each option.
        label_ids: id of each label piece.
    """

    slots: Mapping[str, str]
    options: Sequence[str | int]
    label_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """How long a context may become, and how it is cut.

    Attributes:
        max_tokens: most tokens of the context, prompt not counted.
        slot_tokens: most tokens by slot name, cut first (`option` for all options).
        rule: the truncation rule.
        ending: segments that `keep_ending` keeps.
        counted: template tokens counted by `proportional`.
    """

    max_tokens: int
    slot_tokens: Mapping[str, int]
    rule: CutRule
    ending: int = 0
    counted: int = 0


def render(
    tokenizer: PreTrainedTokenizerBase,
    segments: Sequence[Segment],
    fill: Fill,
    limits: ContextLimits,
    *,
    spaced: bool,
) -> tuple[int, ...]:
    """Context ids of a filled template, cut to its limits.

    Args:
        tokenizer: the model's own.
        segments: the template.
        fill: texts and label ids.
        limits: lengths and truncation rule.
        spaced: put a space before a slot that is not the first segment; byte-level tokenizers need it to see
            the start of a word, sentencepiece adds it by itself.
    """
    parts: list[Ids] = []
    free: list[bool] = []
    side = None
    for position, segment in enumerate(segments):
        if segment.kind == "side":
            side = len(parts)
            continue
        in_front = spaced and position > 0 and segment.kind != "tight"
        parts.append(_ids(tokenizer, segment, fill, limits, spaced=in_front))
        free.append(segment.kind in ("slot", "tight"))
    if limits.rule is CutRule.PROPORTIONAL:
        parts = proportional(parts, free, limits.max_tokens, limits.counted)
    elif limits.rule is CutRule.RIGHT:
        parts = cut_right(parts, limits.max_tokens)
    elif limits.rule is CutRule.KEEP_ENDING:
        parts = keep_ending(parts, limits.ending, limits.max_tokens)
    elif limits.rule is CutRule.LONGER_SIDE:
        parts = longer_side(parts, free, len(parts) if side is None else side, limits.max_tokens)
    else:
        parts = longest_slot(parts, free, limits.max_tokens)
    return tuple(token for part in parts for token in part)


def _ids(
    tokenizer: PreTrainedTokenizerBase, segment: Segment, fill: Fill, limits: ContextLimits, *, spaced: bool
) -> Ids:
    if segment.kind == "answer":
        return [sentinel_id(tokenizer, 0)]
    if segment.kind == "piece":
        return [bare_id(tokenizer, segment.value)]
    if segment.kind == "label":
        assert segment.option is not None
        return [fill.label_ids[segment.option]]
    if segment.kind == "pseudo":
        assert segment.option is not None
        return [-int(fill.options[segment.option]) - 1]
    if segment.kind == "text":
        return list(_encoded(tokenizer, segment.value))
    text = fill.slots[segment.value] if segment.option is None else str(fill.options[segment.option])
    ids = list(_encoded(tokenizer, f" {text}" if spaced else text))
    return ids[: limits.slot_tokens.get(segment.value, len(ids))]


@lru_cache(maxsize=1 << 16)
def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Template texts come with every context, and sentences of a corpus again and again."""
    return tuple(tokenizer.encode(text, add_special_tokens=False))
