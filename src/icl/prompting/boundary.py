"""Where pieces of a prompt meet: tokenized separately, or together with the border found by offsets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import Any

from metashot.base.errors import ConfigError
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.prompt import Encode, Ids

Spans = tuple[tuple[int, int], ...]
EncodeSpans = Callable[[str], tuple[Ids, Spans]]
"""Text to ids and the [start, end) characters of each."""
_ANCHORS = ("a", ".", "\n", "0")
"""Texts that a piece can follow; one of them is in no token together with the piece's first character."""


class Boundary(StrEnum):
    """How pieces become ids."""

    SEPARATE = "separate"
    """Each piece by itself, joined as ids: MetaICL."""
    JOINT = "joint"
    """The whole text at once; a token over a border belongs to the later piece, so that what is scored is whole."""


def span_encoder(tokenizer: AnyTokenizer) -> EncodeSpans:
    """Ids with their offsets, without special tokens.

    Raises:
        ConfigError: the tokenizer knows no offsets.
    """
    if not tokenizer.is_fast:
        raise ConfigError(
            "prompt.boundary", "joint needs the offsets of a fast tokenizer", "use prompt.boundary=separate"
        )

    def encode(text: str) -> tuple[Ids, Spans]:
        encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return tuple(encoded["input_ids"]), tuple(map(tuple, encoded["offset_mapping"]))

    return encode


def split_jointly(texts: Sequence[str], encode: EncodeSpans, tail: str = "") -> list[Ids]:
    """Ids of each of `texts` when they are tokenized as one, with `tail` behind them.

    A token belongs to the text that its last character lies in; one that reaches into the tail belongs to the last
    text, and the tail's own tokens are left out. Offsets may leave out leading blanks, up to a span of no characters
    for a token of blanks only, but they always end where the token ends.
    """
    ids, spans = encode("".join(texts) + tail)
    ends = list(accumulate(map(len, texts)))
    parts: list[list[int]] = [[] for _ in texts]
    for token, (start, end) in zip(ids, spans, strict=True):
        if end > ends[-1] and (start >= ends[-1] or not texts[-1]):
            continue
        parts[min(bisect_right(ends, max(0, end - 1)), len(texts) - 1)].append(token)
    return [tuple(part) for part in parts]


def continuing(encode: Encode) -> Encode:
    """Ids of a text that others precede: without the blank that SentencePiece puts in front of a text that begins."""

    def encode_later(text: str) -> Ids:
        for anchor in _ANCHORS if text else ():
            front, whole = encode(anchor), encode(anchor + text)
            if front and whole[: len(front)] == front:
                return whole[len(front) :]
        return encode(text)

    return encode_later
