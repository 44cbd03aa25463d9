"""Token ids of the pieces that training sequences are built from: each is tokenized once, when first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from data.task import Example
from icl.prompt import Layout, Objective, input_text, output_text

IdArray = npt.NDArray[np.int32]
EncodeBatch = Callable[[list[str]], Sequence[Sequence[int]]]


def batch_encoder(tokenizer: PreTrainedTokenizerBase) -> EncodeBatch:
    """Ids of many texts at once, without special tokens."""

    def encode(texts: list[str]) -> Sequence[Sequence[int]]:
        # verbose=False: a text longer than the model's positions is cut by our own rules later.
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return encoded["input_ids"]  # pyright: ignore[reportReturnType]

    return encode


@dataclass(frozen=True, slots=True)
class Piece:
    """One side of an example as it stands in a sequence.

    Attributes:
        example: number of the example over all pools.
        is_output: the label side.
        first: in the first example of a sequence.
        no_label: in an example whose label is left out.
    """

    example: int
    is_output: bool
    first: bool
    no_label: bool = False

    @property
    def slot(self) -> int:
        """Which of the eight variants of an example this is."""
        return self.is_output + 2 * self.first + 4 * self.no_label


class PieceCache:
    """Ids by piece, in flat arrays: memory is bounded by the pools, whatever the number of steps.

    Args:
        pools: the examples of each task.
        encode: tokenizes a list of texts.
        objective: decides the separators.
        layout: decides the separators.
    """

    def __init__(
        self, pools: Sequence[Sequence[Example]], encode: EncodeBatch, objective: Objective, layout: Layout
    ) -> None:
        self._examples = [example for pool in pools for example in pool]
        self._starts = np.cumsum([0, *(len(pool) for pool in pools)])
        self._encode = encode
        self._objective = objective
        self._layout = layout
        self._offsets: dict[int, npt.NDArray[np.int64]] = {}
        self._lengths: dict[int, IdArray] = {}
        self._ids = np.empty(1 << 16, dtype=np.int32)
        self._used = 0
        self._texts: dict[str, IdArray] = {}

    def number(self, task: int, example: int) -> int:
        """Number over all pools of example `example` of task number `task`."""
        return int(self._starts[task]) + example

    def example(self, number: int) -> Example:
        """The example behind a number over all pools."""
        return self._examples[number]

    def prepare(self, pieces: Iterable[Piece], texts: Iterable[str] = ()) -> None:
        """Tokenize in one call whatever of `pieces` and `texts` is not known yet."""
        missing = [piece for piece in dict.fromkeys(pieces) if not self._known(piece)]
        new_texts = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if not missing and not new_texts:
            return
        encoded = self._encode([*map(self._text, missing), *new_texts])
        for piece, ids in zip(missing, encoded, strict=False):
            self._store(piece, np.asarray(ids, dtype=np.int32))
        for text, ids in zip(new_texts, encoded[len(missing) :], strict=True):
            self._texts[text] = np.asarray(ids, dtype=np.int32)

    def ids(self, piece: Piece) -> IdArray:
        """Ids of a prepared piece (a view; do not write)."""
        offset = int(self._offsets[piece.slot][piece.example])
        return self._ids[offset : offset + int(self._lengths[piece.slot][piece.example])]

    def text_ids(self, text: str) -> IdArray:
        """Ids of a prepared text."""
        return self._texts[text]

    def label_text(self, label: str, *, first: bool) -> str:
        """A label that stands in for an example's own output, with its separator."""
        return output_text(label, objective=self._objective, layout=self._layout, first=first)

    def _known(self, piece: Piece) -> bool:
        if piece.slot not in self._offsets:
            self._offsets[piece.slot] = np.full(len(self._examples), -1, dtype=np.int64)
            self._lengths[piece.slot] = np.zeros(len(self._examples), dtype=np.int32)
        return self._offsets[piece.slot][piece.example] >= 0

    def _text(self, piece: Piece) -> str:
        example = self._examples[piece.example]
        side, text = (output_text, example.output) if piece.is_output else (input_text, example.input)
        return side(
            text,
            objective=self._objective,
            layout=self._layout,
            first=piece.first,
            no_label=piece.no_label,
        )

    def _store(self, piece: Piece, ids: IdArray) -> None:
        while self._used + len(ids) > len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
        self._ids[self._used : self._used + len(ids)] = ids
        self._offsets[piece.slot][piece.example] = self._used
        self._lengths[piece.slot][piece.example] = len(ids)
        self._used += len(ids)

    @property
    def token_count(self) -> int:
        """Tokens held, over all pieces."""
        return self._used
