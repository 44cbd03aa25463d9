"""The token ids that lm-evaluation-harness's own model would score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from metashot.base.errors import DataError
from metashot.engine.scoring.request import Request

_Base: Any = TemplateLM


class HarnessIds(_Base):
    """The token ids of the harness's `hf` model: a model of lm-eval that answers with what it would have scored.

    Args:
        tokenizer: the model's.
        length: most tokens that it reads.
        bos: whether begin-of-sequence is prepended; None leaves it to the tokenizer.
        seq2seq: whether contexts go through an encoder.
    """

    def __init__(self, tokenizer: Any, length: int, bos: bool | None, *, seq2seq: bool) -> None:
        super().__init__()
        self.tokenizer, self.length, self._bos = tokenizer, length, bos
        self.backend = "seq2seq" if seq2seq else "causal"

    @property
    def eot_token_id(self) -> int:
        """End-of-sequence."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands in front of a text without context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Text to ids, begun as the tokenizer begins texts, once."""
        special = self._bos if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and string.startswith(self.tokenizer.decode([self.prefix_token_id])):
            special = False
        return list(
            self.tokenizer(string, **({} if special is None else {"add_special_tokens": special}))[
                "input_ids"
            ]
        )

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[Request]:
        """Each cut on the left to what the model reads; the last token is never read."""
        return [self._request(text, context, target) for text, context, target in requests]

    def _request(self, text: tuple[str, str], context: Sequence[int], target: Sequence[int]) -> Request:
        if not 0 < len(target) <= self.length:
            raise DataError(
                "data.tasks",
                f"has a continuation of {len(target)} tokens: {text[1][:60]!r}",
                f"it needs 1 to {self.length}: leave the task out",
            )
        if self.backend == "seq2seq":
            return Request(tuple(context[-self.length :]), tuple(target))
        kept = (*context, *target)[-(self.length + 1) :]
        place = len(kept) - len(target)
        return Request(tuple(kept[:place]), tuple(kept[place:]))

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[list[Request]]:
        """The disjoint windows of each text."""
        return [
            [self._request(("", "window"), *map(list, window)) for window in map(make_disjoint_window, cut)]
            for cut in (
                get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.length,
                    context_len=1,
                )
                for request in requests
            )
        ]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[Request]:
        """The prompts, for their number of tokens."""
        return [Request(tuple(self.tok_encode(request.args[0])), ()) for request in requests]
