"""The plain scorer: whole sequences in padded batches. Slow, simple, the engine is held to it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.base.errors import ModelError
from metashot.engine.models.exclusive import exclusive
from metashot.engine.models.own_head import logits_at
from metashot.engine.scoring.borders import borders_of, chooses_tokens
from metashot.engine.scoring.memory import is_out_of_memory
from metashot.engine.scoring.precision import float32_between_products
from metashot.engine.scoring.request import Progress, Request, check_requests, extremes, targets_only
from metashot.engine.scoring.ropes import RopeRegimes
from metashot.engine.scoring.vocabulary import chosen_and_best

_logger = logging.getLogger(__name__)

MAX_DIFFERENCE_NATS = 1e-3
"""Largest difference to a request alone in float32, at any token."""

_MEAN_HALF_DIFFERENCE_NATS = 0.1
"""Largest mean difference in half precision, where single tokens of a good model differ by up to 0.3; as many times
more as the scores' standard deviation exceeds 1, since rounding grows with the logits."""

_compared: WeakKeyDictionary[PreTrainedModel, int | None] = WeakKeyDictionary()
"""Tokens of the longest request that was the same alone and in a batch; None where batches change scores."""


class PlainScorer:
    """`score_plain` with its model and batch size bound."""

    def __init__(self, model: PreTrainedModel, batch_size: int = 8) -> None:
        self.model = model
        self.batch_size = batch_size

    def score(self, requests: Sequence[Request], on_progress: Progress | None = None) -> list[Tensor]:
        """Per request a float32 CPU tensor of target log-probabilities in nats."""
        return score_plain(self.model, requests, self.batch_size, on_progress=on_progress)

    def score_with_best(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> list[Tensor]:
        """See `BestScorer`."""
        return score_plain_with_best(self.model, requests, self.batch_size, on_progress=on_progress)

    def check(self, requests: Sequence[Request], scores: Sequence[Tensor]) -> float:
        """Hold a scored cell to a few of its requests alone, see `probe.self_check`."""
        from metashot.engine.scoring.probe import self_check  # which is built on this module

        return self_check(self.model, "plain", self.tokens_computed(requests), requests, scores)

    def score_with_states(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """See `StatesScorer`."""
        from metashot.engine.scoring.states import answer_states

        return self.score(requests, on_progress), answer_states(self.model, requests, self.batch_size)

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """All tokens of all requests, padding not counted."""
        return sum(request.length for request in requests if request.target)


def score_plain(
    model: PreTrainedModel,
    requests: Sequence[Request],
    batch_size: int = 8,
    pad_to: int | None = None,
    on_progress: Progress | None = None,
) -> list[Tensor]:
    """Score each request by a forward pass over context and target, `batch_size` requests at a time.

    Requests of similar length share a batch, if their rotary factors are the same (see `ropes`) and batches change no
    score (see `batches_are_independent`); an out-of-memory halves it. An encoder-decoder model reads the
    context (an empty one as a single end token) and decodes the target; there every target token is scored,
    since a start token precedes the first.

    Args:
        model: a causal or encoder-decoder language model in eval mode.
        requests: what to score.
        batch_size: sequences per forward pass.
        pad_to: pad every batch to this many tokens (default: its longest sequence); causal models only.
        on_progress: called with (tokens done, tokens in all).

    Returns:
        Per request a float32 CPU tensor [request.scored] of log-probabilities in nats, in request order.

    Raises:
        ConfigError: a request is longer than the model's positions.
        ModelError: a log-probability is NaN or infinite.
    """
    return targets_only(score_plain_with_best(model, requests, batch_size, pad_to, on_progress))


@torch.inference_mode()
def score_plain_with_best(
    model: PreTrainedModel,
    requests: Sequence[Request],
    batch_size: int = 8,
    pad_to: int | None = None,
    on_progress: Progress | None = None,
) -> list[Tensor]:
    """`score_plain` with the log-probability of each position's best token beside the target's: [scored, 2]."""
    with exclusive(model):
        if batch_size > 1 and pad_to is None and not batches_are_independent(model, requests):
            batch_size = 1
        return score_in_batches(model, requests, batch_size, pad_to, on_progress)


def batches_are_independent(model: PreTrainedModel, requests: Sequence[Request]) -> bool:
    """Whether a request scores the same in a batch as alone: compared when requests pass a border or double in length.

    Attention over chosen tokens, or over blocks of them, may choose among padding, and an encoder reads it.
    """
    few = [] if model.config.is_encoder_decoder else extremes(requests)
    known = _compared.get(model, 0)
    if known is None or len(few) < 2:
        return known is not None
    length = few[0].length
    if chooses_tokens(model, length):
        return False
    if length >= 2 * known or any(known <= border < length for border in borders_of(model)):
        ours = targets_only(score_in_batches(model, few, len(few)))
        problem = difference_to_alone(model, few, ours).problem
        _compared[model] = known = None if problem else length
        if problem:
            words = "%s is scored one request at a time: in a batch, %s"
            _logger.warning(words, type(model).__name__, problem)
    return known is not None


@torch.inference_mode()
def score_in_batches(
    model: PreTrainedModel,
    requests: Sequence[Request],
    batch_size: int,
    pad_to: int | None = None,
    on_progress: Progress | None = None,
) -> list[Tensor]:
    """`score_plain_with_best`, whether or not a batch changes the scores of its requests."""
    seq2seq = bool(model.config.is_encoder_decoder)
    if not seq2seq:
        check_requests(model.config, requests)
    scores = [torch.empty(0, 2)] * len(requests)
    wanted = [i for i, request in enumerate(requests) if (request.target if seq2seq else request.scored)]
    wanted.sort(key=lambda index: requests[index].length)
    done, total = 0, sum(requests[index].length for index in wanted)
    regimes = RopeRegimes.of(model)
    while wanted:
        regime = regimes.regime(requests[wanted[0]].length)
        indices = [i for i in wanted[:batch_size] if regimes.regime(requests[i].length) == regime]
        batch = [requests[index] for index in indices]
        regimes.forget()
        try:
            with float32_between_products(model):
                rows = _score_seq2seq(model, batch) if seq2seq else _score_causal(model, batch, pad_to)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
            batch_size = len(batch) // 2
            _logger.warning(
                "out of memory with %d requests at a time: going on with %d", len(batch), batch_size
            )
            continue
        for index, row in zip(indices, rows, strict=True):
            scores[index] = check_finite(row.cpu(), index)
        wanted = wanted[len(batch) :]
        done += sum(request.length for request in batch)
        if on_progress is not None:
            on_progress(done, total)
    return scores


@dataclass(frozen=True, slots=True)
class Difference:
    """How scores differ from those of each request alone.

    Attributes:
        worst: the largest difference at any token, in nats.
        problem: in words, where that is more than rounding; else None.
    """

    worst: float
    problem: str | None


def difference_to_alone(
    model: PreTrainedModel, requests: Sequence[Request], ours: Sequence[Tensor]
) -> Difference:
    """Compare with each request by itself, in a batch of one."""
    try:
        alone = targets_only(score_in_batches(model, requests, 1))
    except ModelError:
        return Difference(0.0, None)  # NaN weights: `score` says which request.
    expected = torch.cat(alone)
    if not len(expected):
        return Difference(0.0, None)
    differences = (torch.cat(list(ours)) - expected).abs()
    worst = float(differences.max())
    if model.dtype == torch.float32:
        found, limit, kind = worst, MAX_DIFFERENCE_NATS, "up to"
    else:
        spread = max(1.0, float(expected.std(correction=0)))
        found, limit, kind = float(differences.mean()), _MEAN_HALF_DIFFERENCE_NATS * spread, "on average"
    words = f"its scores differ from those of a request alone by {kind} {found:.2g} nats"
    return Difference(worst, words if found > limit else None)


def _score_causal(model: PreTrainedModel, batch: list[Request], pad_to: int | None) -> list[Tensor]:
    ids, mask = padded([request.context + request.target for request in batch], model.device, pad_to)
    scored = [slice(request.length - request.scored, request.length) for request in batch]
    predicting = torch.zeros_like(mask, dtype=torch.bool)
    for row, part in enumerate(scored):
        predicting[row, part.start - 1 : part.stop - 1] = True
    # 0 instead of the config's pad id: padding is masked, and some configs have none.
    logits = logits_at(model, *predicting.nonzero(as_tuple=True), input_ids=ids, attention_mask=mask)
    targets = torch.cat([ids[row, part] for row, part in enumerate(scored)])
    log_probs = chosen_and_best(logits, targets)
    return list(log_probs.split([request.scored for request in batch]))


def _score_seq2seq(model: PreTrainedModel, batch: list[Request]) -> list[Tensor]:
    config: Any = model.config
    ids, mask = padded([encoder_input(config, request.context) for request in batch], model.device)
    labels, _ = padded([request.target for request in batch], model.device)
    start = torch.full((len(batch), 1), config.decoder_start_token_id, device=model.device)
    decoder_ids = torch.cat([start, labels[:, :-1]], dim=1)
    logits: Tensor = model(
        input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False
    ).logits
    return [
        chosen_and_best(logits[row, : len(request.target)], labels[row, : len(request.target)])
        for row, request in enumerate(batch)
    ]


def encoder_input(config: Any, context: tuple[int, ...]) -> tuple[int, ...]:
    """What an encoder reads: the context, or a single end token for an empty one."""
    return context or (config.eos_token_id if config.eos_token_id is not None else 0,)


def padded(
    sequences: Sequence[tuple[int, ...]], device: torch.device, pad_to: int | None = None
) -> tuple[Tensor, Tensor]:
    """Right-padded ids and attention mask, both [batch, longest]."""
    width = max(max(map(len, sequences)), pad_to or 0)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


def check_finite(log_probs: Tensor, index: int) -> Tensor:
    """`log_probs` unchanged.

    Raises:
        ModelError: a value is NaN or infinite.
    """
    bad = log_probs[~log_probs.isfinite()]
    if len(bad):
        raise ModelError(
            "model",
            f"request {index}: a target log-probability is {bad[0].item()}",
            "check the weights, or try model.dtype=float32",
        )
    return log_probs
