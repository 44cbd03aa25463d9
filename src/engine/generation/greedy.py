"""Greedy decoding of many prompts: what all of them begin with is computed once.

The demonstrations of a cell are the same for every test input, so the longest common prefix of the prompts is run
through the model once, and each batch starts from copies of its key-value cache. The rest of a prompt is padded
*between* prefix and suffix, where the attention mask hides it, so that every prompt ends at the same place.
Decoding itself is `transformers`' own `generate`.

Greedy is greedy: of a model's `generation_config.json` only its token ids count. Published ones also hold penalties
for repetition and the like, which would make another word than the most probable one the answer.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from metashot.base.errors import ConfigError
from metashot.engine.generation.stopping import Stopping
from metashot.engine.models.exclusive import exclusive
from metashot.engine.models.sizes import context_length

_logger = logging.getLogger(__name__)

Ids = tuple[int, ...]
Progress = Callable[[int, int], None]
_SHORTEST_PREFIX = 8
"""A common prefix below this many tokens is not worth a cache of its own."""


class GreedyGenerator:
    """Answers of one model, the most probable token at every step.

    Args:
        model: a decoder or encoder-decoder of transformers.
        tokenizer: the model's own.
        batch_size: prompts that are decoded together; halved when memory does not suffice.
        obeys_generation_config: keep the penalties of the model's `generation_config.json`, as `generate` itself does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 16,
        *,
        obeys_generation_config: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self._obeys = obeys_generation_config

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Ids], stopping: Stopping, on_progress: Progress | None = None
    ) -> list[str]:
        """The answer to each prompt, cut at the first stop string or end-of-sequence token.

        Args:
            prompts: token ids; none may be empty.
            stopping: when an answer ends.
            on_progress: called with (prompts done, prompts in all) after each batch.

        Raises:
            ConfigError: a prompt leaves no room for `max_new_tokens` in the model's context.
        """
        self._check(prompts, stopping)
        with exclusive(self.model), _token_ids_only(self.model) if not self._obeys else nullcontext():
            return self._answers(prompts, stopping, on_progress)

    def _answers(self, prompts: Sequence[Ids], stopping: Stopping, on_progress: Progress | None) -> list[str]:
        prefix, cache = self._shared_prefix(prompts)
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        answers = [""] * len(prompts)
        size, start = self.batch_size, 0
        while start < len(order):
            places = order[start : start + size]
            try:
                texts = self._batch([prompts[place] for place in places], prefix, cache, stopping)
            except (torch.OutOfMemoryError, MemoryError):
                if size == 1:
                    raise
                size = max(1, size // 2)
                _logger.warning("out of memory: going on with %d prompts at a time", size)
                continue
            for place, text in zip(places, texts, strict=True):
                answers[place] = text
            start += len(places)
            if on_progress is not None:
                on_progress(start, len(order))
        return answers

    def _check(self, prompts: Sequence[Ids], stopping: Stopping) -> None:
        limit = context_length(self.model.config)
        for place, prompt in enumerate(prompts):
            taken = len(prompt) + (0 if self._is_seq2seq else stopping.max_new_tokens)
            if not prompt:
                raise ConfigError("data", f"prompt {place} has no token", "an answer needs a text to follow")
            if taken > limit:
                raise ConfigError(
                    "method.max_new_tokens",
                    f"prompt {place} has {len(prompt)} tokens, which with {stopping.max_new_tokens} new ones is over "
                    f"the model's {limit} positions",
                    "lower it, or use fewer or shorter demonstrations",
                )

    @property
    def _is_seq2seq(self) -> bool:
        return bool(self.model.config.is_encoder_decoder)

    def _shared_prefix(self, prompts: Sequence[Ids]) -> tuple[int, Any]:
        """Length of what all prompts begin with (less than any of them), and its cache; 0 and None without."""
        if self._is_seq2seq or len(prompts) < 2:
            return 0, None
        length = min(_common_prefix(prompts), min(map(len, prompts)) - 1)
        if length < _SHORTEST_PREFIX:
            return 0, None
        ids = torch.tensor([prompts[0][:length]], device=self.model.device)
        out = self.model(input_ids=ids, use_cache=True, logits_to_keep=1)
        cache = getattr(out, "past_key_values", None)
        if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
            return 0, None  # recurrent states and windows cannot be followed by padding
        return length, cache

    def _batch(self, prompts: list[Ids], prefix: int, cache: Any, stopping: Stopping) -> list[str]:
        """Decode prompts that share `prefix` tokens."""
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self._padding_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            gap = longest - len(prompt)
            ids[row, :prefix] = torch.tensor(prompt[:prefix])
            ids[row, prefix + gap :] = torch.tensor(prompt[prefix:])
            mask[row, :prefix] = 1
            mask[row, prefix + gap :] = 1
        given: dict[str, Any] = {}
        if cache is not None:
            given["past_key_values"] = copy.deepcopy(cache)
            given["past_key_values"].batch_repeat_interleave(len(prompts))
        decode: Any = self.model.generate
        out = decode(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=stopping.max_new_tokens,
            stop_strings=list(stopping.stop) or None,
            tokenizer=self.tokenizer,
            pad_token_id=self._padding_id,
            **given,
        )
        new = out if self._is_seq2seq else out[:, longest:]
        return [self._text(row, stopping) for row in new]

    @property
    def _padding_id(self) -> int:
        known: tuple[Any, ...] = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(token for token in known if token is not None))

    def _text(self, row: Tensor, stopping: Stopping) -> str:
        text = str(
            self.tokenizer.decode(row.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
        return cut_at_stop(text, stopping.stop)


@contextmanager
def _token_ids_only(model: PreTrainedModel) -> Generator[None]:
    """Inside, the model's generation config says no more than which tokens begin, end and pad a text."""
    held: Any = model
    whole: Any = held.generation_config
    given: dict[str, Any] = {} if whole is None else whole.to_dict()
    ids = {key: value for key, value in given.items() if key.endswith("_token_id") and value is not None}
    held.generation_config = GenerationConfig(**ids)
    try:
        yield
    finally:
        held.generation_config = whole


def _common_prefix(prompts: Sequence[Ids]) -> int:
    """Tokens that all prompts begin with: what the first and the last in order share."""
    first, last = min(prompts), max(prompts)
    pairs = zip(first, last, strict=False)
    return next(
        (place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(last))
    )


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first occurrence of any stop string."""
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text
