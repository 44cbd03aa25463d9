"""Token ids of the pieces that training sequences are built from: each is tokenized once, when first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from metashot.data.task import Example
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.frame import Frame
from metashot.icl.prompting.prompt import Encode, Ids, Objective

IdArray = npt.NDArray[np.int32]
CodeArray = npt.NDArray[np.int64]
EncodeBatch = Callable[[list[str]], Sequence[Sequence[int]]]


def batch_encoder(tokenizer: AnyTokenizer) -> EncodeBatch:
    """Ids of many texts at once, without special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.truncation is None and backend.padding is None:
        # The same ids as the call below, without the offsets and the masks that nobody reads here.
        return lambda texts: [
            encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)
        ]

    whole: Any = tokenizer

    def encode(texts: list[str]) -> Sequence[Sequence[int]]:
        # verbose=False: a text longer than the model's positions is cut by our own rules later.
        encoded = whole(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return encoded["input_ids"]

    return encode


_VARIANTS = 8


def piece_codes(
    examples: CodeArray, *, is_output: bool, first: npt.NDArray[np.bool_], no_label: npt.NDArray[np.bool_]
) -> CodeArray:
    """One side of each example as it stands in a sequence, as a number.

    Example 5 at the front of a sequence: its input is 8 * 5 + 2 = 42, its label 8 * 5 + 2 + 1 = 43; behind others they
    are 40 and 41, with other separators and so other ids.

    Args:
        examples: [n] numbers of the examples over all pools.
        is_output: the label side.
        first: [n] in the first example of a sequence.
        no_label: [n] in an example whose label is left out.
    """
    return _VARIANTS * examples + is_output + 2 * first + 4 * no_label


class PieceCache:
    """Ids by piece, in flat arrays: memory is bounded by the pools, whatever the number of steps.

    Args:
        pools: the examples of each task.
        encode: tokenizes a list of texts.
        frame: the texts around inputs and outputs.
        later: tokenizes a piece that stands behind others, where that is not what `encode` does.
    """

    def __init__(
        self,
        pools: Sequence[Sequence[Example]],
        encode: EncodeBatch,
        frame: Frame,
        later: Encode | None = None,
    ) -> None:
        self._examples = [example for pool in pools for example in pool]
        self._starts = np.cumsum([0, *(len(pool) for pool in pools)])
        self._encode = encode
        self._frame = frame
        self._later = later
        # Offsets count from 1: zero pages of a large array cost nothing until they are written.
        self._offsets = np.zeros(_VARIANTS * len(self._examples), dtype=np.int64)
        self._lengths = np.zeros(_VARIANTS * len(self._examples), dtype=np.int32)
        self._ids = np.empty(1 << 16, dtype=np.int32)
        self._used = 0
        self._texts: dict[str, IdArray] = {}
        self._starting: set[str] = set()

    def numbers(self, task: int, examples: Sequence[int]) -> CodeArray:
        """Numbers over all pools of some examples of task number `task`."""
        return np.asarray(examples, dtype=np.int64) + self._starts[task]

    def example(self, number: int) -> Example:
        """The example behind a number over all pools."""
        return self._examples[number]

    def prepare(self, codes: CodeArray, texts: Iterable[str] = ()) -> None:
        """Tokenize in one call whatever of the pieces (`piece_codes`) and `texts` is not known yet."""
        wanted = np.unique(codes)
        missing: list[int] = wanted[self._offsets[wanted] == 0].tolist()
        new_texts = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if not missing and not new_texts:
            return
        starts = [*map(self._starts_text, missing), *(text in self._starting for text in new_texts)]
        encoded = self._encode_pieces([*map(self._text, missing), *new_texts], starts)
        for code, ids in zip(missing, encoded, strict=False):
            self._store(code, np.asarray(ids, dtype=np.int32))
        for text, ids in zip(new_texts, encoded[len(missing) :], strict=True):
            self._texts[text] = np.asarray(ids, dtype=np.int32)

    def ids(self, codes: CodeArray) -> list[IdArray]:
        """Ids of prepared pieces (views; do not write); a piece never prepared is empty."""
        starts = self._offsets[codes] - 1
        ends = starts + self._lengths[codes]
        return [self._ids[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def encode(self, text: str, *, starts: bool) -> Ids:
        """Ids of a piece that is not kept; `starts` where nothing stands in front of it."""
        return tuple(self._encode_pieces([text], [starts])[0])

    def text_ids(self, text: str) -> IdArray:
        """Ids of a prepared text."""
        return self._texts[text]

    def label_text(self, label: str, *, first: bool) -> str:
        """A label that stands in for an example's own output, with its separator."""
        text = self._frame.output_text(label, first=first)
        if first and self._frame.objective is Objective.CHANNEL:
            self._starting.add(text)
        return text

    def _text(self, code: int) -> str:
        number, variant = divmod(code, _VARIANTS)
        example = self._examples[number]
        is_output, first, no_label = (bool(variant & bit) for bit in (1, 2, 4))
        write = self._frame.output_text if is_output else self._frame.input_text
        text = example.output if is_output else example.input
        return write(text, first=first, no_label=no_label)

    def _starts_text(self, code: int) -> bool:
        """Whether a piece is the first one of a sequence."""
        is_output, first = bool(code & 1), bool(code & 2)
        return first and is_output == (self._frame.objective is Objective.CHANNEL)

    def _encode_pieces(self, texts: list[str], starts: Sequence[bool]) -> Sequence[Sequence[int]]:
        if self._later is None:
            return self._encode(texts)
        bare = not self._frame.opening
        return [
            self._encode([text])[0] if start and bare else self._later(text)
            for text, start in zip(texts, starts, strict=True)
        ]

    def _store(self, code: int, ids: IdArray) -> None:
        while self._used + len(ids) > len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
        self._ids[self._used : self._used + len(ids)] = ids
        self._offsets[code] = self._used + 1
        self._lengths[code] = len(ids)
        self._used += len(ids)
