"""Whether a way of scoring does what the model does: found out by behaviour, not by a list of models.

Three questions. *Isolation*: with the tokens of one branch replaced, do its siblings stay as they are to the last
bit? A layer that mixes rows by their order (a convolution, a recurrence) fails it. *Comparison*: are the numbers
those of the model on each request alone, a batch of one without padding? *Masks*: are the masks that the model asks
for causal, with at most a sliding window?

Requests of a probe are short. So the comparison is made again, with requests at hand, when they pass a length that the
config names (a window, a chunk, so many tokens that attention chooses) and when the longest one doubles; and each cell
is compared with a few of its requests alone (`self_check`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.base.errors import ModelError
from metashot.engine.models.own_head import head_input
from metashot.engine.scoring.interception import AttentionCall, UnsharedAttentionError, attention_handled_by
from metashot.engine.scoring.plain import (
    MAX_DIFFERENCE_NATS,
    batches_are_independent,
    difference_to_alone,
    score_in_batches,
)
from metashot.engine.scoring.request import BestScorer, Request, targets_only

PROBE_PREFIX = 40
PROBE_BRANCH = 12
_STRIDE = 7919
_LONGEST_PROBE = 320
"""Windows and regimes within this length are crossed by the probe; longer ones by the first request that does."""

MAX_HALF_LEAK_NATS = 0.2
"""Experts see other batches when a token changes; in half precision that rounds otherwise."""

_CHECKED_REQUESTS = 3
_CHECKED_SHARE = 0.02
"""A cell is compared with one of its requests alone, and with so many as cost at most this share of its tokens."""


@dataclass(slots=True)
class Attentions:
    """What a model asked for in one forward pass; handles the attention of that pass.

    Attributes:
        calls: attention calls, one per layer that has attention.
        windows: the sliding windows among their masks.
    """

    calls: int = 0
    windows: set[int] = field(default_factory=set)

    def attend(self, call: AttentionCall) -> Tensor:
        """Zeros: only the call counts.

        Raises:
            UnsharedAttentionError: the mask is not what the engine takes it for.
        """
        self.calls += 1
        if call.allowed is not None and not _is_causal(call.allowed, call.window):
            raise UnsharedAttentionError("its attention mask is neither causal nor a sliding window")
        if call.window is not None:
            self.windows.add(call.window)
        return call.queries.new_zeros(*call.queries.shape[:2], call.values.shape[2])


def _is_causal(allowed: Callable[..., Any], window: int | None) -> bool:
    """Whether a mask is causal with that window, around the window's first borders."""
    reach = 4 if window is None else window
    queries = torch.tensor([q + d for q in (1, reach, 2 * reach, 3 * reach) for d in (-1, 0, 1)])[:, None]
    keys = torch.arange(3 * reach + 2)[None]
    expected = keys <= queries
    if window is not None:
        expected &= queries - keys < window
    first = torch.zeros(1, 1, dtype=torch.long)
    return torch.equal(torch.as_tensor(allowed(first, first, queries, keys)).expand(expected.shape), expected)


@torch.inference_mode()
def observe(model: PreTrainedModel) -> Attentions:
    """Call the model on a few tokens and watch its attention.

    Raises:
        UnsharedAttentionError: the engine does not do this kind of attention, or not all layers have it.
    """
    seen = Attentions()
    ids = torch.arange(1, 9, device=model.device)[None]
    with attention_handled_by(model, seen), head_input(model, lambda hidden: hidden[:, :1]):
        model(input_ids=ids, position_ids=torch.arange(8, device=model.device)[None], use_cache=False)
    layers = int(model.config.get_text_config().num_hidden_layers)
    if seen.calls < layers:
        raise UnsharedAttentionError(
            f"only {seen.calls} of its {layers} layers go through transformers' attention interface"
        )
    return seen


def probed_length(borders: Sequence[int]) -> int:
    """Tokens of the longest request of `why_not`."""
    crossed = [border for border in borders if border + 2 * PROBE_BRANCH <= _LONGEST_PROBE]
    return PROBE_BRANCH + max([PROBE_PREFIX, *(border + PROBE_BRANCH for border in crossed)])


def why_not(model: PreTrainedModel, scorer: BestScorer, length: int) -> str | None:
    """Why `scorer` must not stand in for the model, or None; requests of `length` tokens."""
    first, second = (_branching(model, length, replaced) for replaced in (False, True))
    ours, others = (targets_only(scorer.score_with_best(requests)) for requests in (first, second))
    leak = _leak(ours, others)
    if leak > 0:
        return f"replacing a prompt's tokens changes its neighbours' scores by {leak:.2g} nats"
    return difference_to_alone(model, first, ours).problem


def check_causal(model: PreTrainedModel) -> None:
    """Refuse a model in which a token's score depends on the tokens behind it, and so reads the answer.

    Of a quantized model nothing can be told so: LLM.int8() looks for large activations over all rows of a product.

    Raises:
        ModelError: another last token changes the scores of those before it.
    """
    if getattr(model, "is_quantized", False):
        return
    request = _branching(model, PROBE_PREFIX, False)[0]
    other = Request(request.context, (*request.target[:-1], request.target[-2]))
    try:
        ours, others = (targets_only(score_in_batches(model, [one], 1))[0][:-1] for one in (request, other))
    except Exception:
        return  # what fails here is told where requests are scored
    leak = float((ours - others).abs().max())
    if leak > (MAX_DIFFERENCE_NATS if model.dtype == torch.float32 else MAX_HALF_LEAK_NATS):
        raise ModelError(
            "model",
            f"{type(model).__name__} is not causal: another last token changes the scores of those before it by "
            f"{leak:.2g} nats, so that a score reads the answer",
            "choose a causal language model, or set is_decoder (xlm: causal) to true where its config has that key",
        )


def mixes_batches(model: PreTrainedModel, length: int, requests: Sequence[Request] = ()) -> bool:
    """Whether a batch changes the scores of its rows in the model itself: one request's tokens, or padding.

    LLM.int8() looks for large activations over all rows of a product.
    """
    first, second = (_branching(model, length, replaced) for replaced in (False, True))
    ours, others = (targets_only(score_in_batches(model, one, len(one))) for one in (first, second))
    return _leak(ours, others) > MAX_DIFFERENCE_NATS or not batches_are_independent(
        model, [*first, *requests]
    )


def _leak(ours: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest change of requests of which the second was replaced."""
    return max(float((ours[i] - others[i]).abs().max()) for i in range(len(ours)) if i != 1)


def self_check(
    model: PreTrainedModel, route: str, computed: int, requests: Sequence[Request], scores: Sequence[Tensor]
) -> float:
    """Hold a cell to a few of its requests alone.

    Args:
        model: that scored it.
        route: on which way.
        computed: tokens that the cell took; the check takes the first of its requests, and others as long as all
            together take no more than 2 % of that.
        requests: the cell's.
        scores: their target log-probabilities.

    Returns:
        The largest difference at any token, in nats.

    Raises:
        ModelError: it is more than rounding.
    """
    places = [place for place, request in enumerate(requests) if request.scored]
    random.Random(len(places)).shuffle(places)
    chosen, tokens = places[:1], sum(requests[place].length for place in places[:1])
    for place in places[1:_CHECKED_REQUESTS]:
        tokens += requests[place].length
        if tokens <= _CHECKED_SHARE * computed:
            chosen.append(place)
    if not chosen:
        return 0.0
    difference = difference_to_alone(model, [requests[i] for i in chosen], [scores[i] for i in chosen])
    if difference.problem is not None:
        raise ModelError(
            "scorer",
            f"{type(model).__name__} by way of {route}: {difference.problem} (requests {sorted(chosen)} of a cell)",
            "use scorer=plain scorer.batch_size=1",
        )
    return difference.worst


def _branching(model: PreTrainedModel, length: int, replaced: bool) -> list[Request]:
    """Three branches of a common prefix, and a shorter request; `replaced` gives the middle one other tokens, but its first."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    # Special tokens, such as those that stand for images, live at the ends of vocabularies.
    low, high = (8, min(vocabulary, 4096) - 8) if vocabulary >= 64 else (0, vocabulary)
    tokens = [low + _STRIDE * (i + 1) % (high - low) for i in range(length + 4 * PROBE_BRANCH)]
    prefix = tuple(tokens[: length - PROBE_BRANCH])
    branches = [tokens[length + PROBE_BRANCH * i : length + PROBE_BRANCH * (i + 1)] for i in range(4)]
    middle = branches[1] if not replaced else [branches[1][0], *branches[3][1:]]
    shorter = Request(tuple(tokens[length::-1][: 3 * length // 4]), tuple(tokens[:3]))
    return [*(Request(prefix, tuple(branch)) for branch in (branches[0], middle, branches[2])), shorter]
