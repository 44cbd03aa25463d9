"""Decoding of many prompts: what all of them begin with is computed once, and a prompt once for all its samples.

The demonstrations of a cell are the same for every test input, so the longest common prefix of the prompts is run
through the model once, and each batch starts from copies of its key-value cache. The rest of a prompt is padded
*between* prefix and suffix, where the attention mask hides it, so that every prompt ends at the same place. Samples of
one prompt start from copies of the cache of the whole of it. Decoding itself is `transformers`' own `generate`.

Greedy is greedy: of a model's `generation_config.json` only its token ids count. Published ones also hold penalties
for repetition and the like, which would make another word than the most probable one the answer.

A sampled token is the largest of the log-probabilities with Gumbel noise added, which has exactly the distribution of
the softmax (Maddison et al. 2014). Each answer draws its noise from a seed of its own.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator as Yields
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

from metashot.base.errors import ConfigError
from metashot.engine.generation.request import (
    GREEDY,
    Generated,
    GenerationRequest,
    Ids,
    Progress,
    Sampling,
    Stopping,
    cut_at_stop,
)
from metashot.engine.models.exclusive import exclusive
from metashot.engine.models.sizes import context_length

_logger = logging.getLogger(__name__)

_SHORTEST_PREFIX = 8
"""A common prefix below this many tokens is not worth a cache of its own."""


class PrefixGenerator:
    """Answers of one loaded model.

    Args:
        model: a decoder or encoder-decoder of transformers.
        tokenizer: the model's own.
        batch_size: answers that are decoded together; halved when memory does not suffice.
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
        self,
        requests: Sequence[GenerationRequest],
        stopping: Stopping,
        sampling: Sampling = GREEDY,
        on_progress: Progress | None = None,
    ) -> list[Generated]:
        """An answer to each request, cut at the first stop string or end-of-sequence token; equal ones stand once.

        Raises:
            ConfigError: a prompt that is empty, or leaves no room for `max_new_tokens` in the model's context.
        """
        self._check(requests, stopping)
        if sampling.greedy:
            requests = [GenerationRequest(request.prompt) for request in requests]
        # Samples of one prompt stand together, and prompts of one length, which need no padding.
        order = sorted(set(requests), key=lambda one: (len(one.prompt), one.prompt, one.seed))
        with exclusive(self.model), _token_ids_only(self.model) if not self._obeys else nullcontext():
            answers = self._answers(order, stopping, sampling, on_progress)
        return [answers[request] for request in requests]

    def _answers(
        self,
        order: list[GenerationRequest],
        stopping: Stopping,
        sampling: Sampling,
        on_progress: Progress | None,
    ) -> dict[GenerationRequest, Generated]:
        prefix, cache = self._shared_prefix(list(dict.fromkeys(request.prompt for request in order)))
        answers: dict[GenerationRequest, Generated] = {}
        size = self.batch_size
        while len(answers) < len(order):
            chosen = order[len(answers) : len(answers) + size]
            try:
                found = self._batch(chosen, prefix, cache, stopping, sampling)
            except (torch.OutOfMemoryError, MemoryError):
                if size == 1:
                    raise
                size = max(1, size // 2)
                _logger.warning("out of memory: going on with %d answers at a time", size)
                continue
            answers |= dict(zip(chosen, found, strict=True))
            if on_progress is not None:
                on_progress(len(answers), len(order))
        return answers

    def _check(self, requests: Sequence[GenerationRequest], stopping: Stopping) -> None:
        limit = context_length(self.model.config)
        for place, request in enumerate(requests):
            taken = len(request.prompt) + (0 if self._is_seq2seq else stopping.max_new_tokens)
            if not request.prompt:
                raise ConfigError("data", f"prompt {place} has no token", "an answer needs a text to follow")
            if taken > limit:
                raise ConfigError(
                    "method.max_new_tokens",
                    f"prompt {place} has {len(request.prompt)} tokens, which with {stopping.max_new_tokens} new ones "
                    f"is over the model's {limit} positions",
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
        return (length, cache) if _can_be_continued(cache) else (0, None)

    def _batch(
        self,
        requests: Sequence[GenerationRequest],
        prefix: int,
        cache: Any,
        stopping: Stopping,
        sampling: Sampling,
    ) -> list[Generated]:
        """Decode requests whose prompts share `prefix` tokens."""
        prompts = list(dict.fromkeys(request.prompt for request in requests))
        ids, mask = (part.to(self.model.device) for part in self._padded(prompts, prefix))
        if cache is not None:
            cache = copy.deepcopy(cache)
            cache.batch_repeat_interleave(len(prompts))
        if len(prompts) < len(requests):
            rows = torch.tensor([prompts.index(request.prompt) for request in requests], device=ids.device)
            cache = self._cache_of_whole(ids, mask, cache)
            ids, mask = ids[rows], mask[rows]
            if cache is not None:
                cache.batch_select_indices(rows)
        processors = LogitsProcessorList(_choosing(sampling, [request.seed for request in requests]))
        start = 1 if self._is_seq2seq else ids.shape[1]
        ended = _AtStop(self.tokenizer, stopping.stop, start, len(requests))
        out = self._decoded(
            ids,
            mask,
            cache,
            max_new_tokens=stopping.max_new_tokens,
            stopping_criteria=StoppingCriteriaList([ended]),
            logits_processor=processors,
        )
        rows_of_ids = out[:, start:].tolist()
        return [
            self._answer(row[:end], stopping) for row, end in zip(rows_of_ids, ended.lengths, strict=True)
        ]

    def _padded(self, prompts: Sequence[Ids], prefix: int) -> tuple[Tensor, Tensor]:
        """[prompts, longest] ids, padded behind the prefix, and which of them are real."""
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self._padding_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            gap = longest - len(prompt)
            ids[row, :prefix] = torch.tensor(prompt[:prefix])
            ids[row, prefix + gap :] = torch.tensor(prompt[prefix:])
            mask[row, :prefix] = 1
            mask[row, prefix + gap :] = 1
        return ids, mask

    def _cache_of_whole(self, ids: Tensor, mask: Tensor, cache: Any) -> Any:
        """The cache of all prompts but their last tokens; None where samples cannot start from a copy."""
        if self._is_seq2seq or ids.shape[1] < 2:
            return None
        out = self._decoded(ids, mask, cache, max_new_tokens=1, return_dict_in_generate=True)
        filled = out.past_key_values
        if not _can_be_continued(filled):
            return None
        filled.crop(-1)
        return filled

    def _decoded(self, ids: Tensor, mask: Tensor, cache: Any, **given: Any) -> Any:
        decode: Any = self.model.generate
        if cache is not None:
            given["past_key_values"] = cache
        return decode(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            pad_token_id=self._padding_id,
            **given,
        )

    @property
    def _padding_id(self) -> int:
        known: tuple[Any, ...] = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(token for token in known if token is not None))

    @property
    def _ends(self) -> frozenset[int]:
        """Ids that end a text."""
        config: Any = self.model.generation_config
        known = None if config is None else config.eos_token_id
        return frozenset(known if isinstance(known, list) else [] if known is None else [known])

    def _answer(self, row: list[int], stopping: Stopping) -> Generated:
        """One row's answer; padding stands behind a token that ends a text."""
        ends = self._ends
        row = row[: next((place + 1 for place, token in enumerate(row) if token in ends), None)]
        text = self.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Generated(cut_at_stop(str(text), stopping.stop), len(row))


class _AtStop(StoppingCriteria):
    """Ends a row whose answer holds a stop string, whatever the tokenizer makes of it, and knows how long it then is.

    The criterion of transformers for strings needs tokenizers that know the letters a to f, and counts what the prompt
    ends with.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], start: int, rows: int
    ) -> None:
        self._tokenizer, self._stop, self._start = tokenizer, stop, start
        self.lengths: list[int | None] = [None] * rows

    def __call__(self, input_ids: Any, scores: Any, **given: Any) -> Any:
        """[rows] whether each has ended."""
        del scores, given
        running = [row for row, length in enumerate(self.lengths) if length is None] if self._stop else []
        new = input_ids[:, self._start :].tolist()
        for row in running:
            text = str(self._tokenizer.decode(new[row], clean_up_tokenization_spaces=False))
            if any(word in text for word in self._stop):
                self.lengths[row] = len(new[row])
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)


class _OwnNoise(LogitsProcessor):
    """Adds Gumbel noise to the scores of each row from a random generator of its own."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[rows, vocabulary] scores with noise; drawn on the CPU, so that every device draws the same."""
        del input_ids
        waits = torch.stack(
            [torch.empty(scores.shape[1]).exponential_(generator=one) for one in self._generators]
        )
        return scores - waits.clamp_min(torch.finfo(waits.dtype).tiny).log().to(scores.device)


def _choosing(sampling: Sampling, seeds: Sequence[int]) -> list[LogitsProcessor]:
    """What makes the largest score the one that is to be chosen."""
    if sampling.greedy:
        return []
    chosen: list[Any] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(sampling.top_p))
    return [*chosen, _OwnNoise(seeds)]


def _can_be_continued(cache: Any) -> bool:
    """Recurrent states and windows cannot be followed by padding or copied without their last token."""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


@contextmanager
def _token_ids_only(model: PreTrainedModel) -> Yields[None]:
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
