"""Whether a way of scoring does what the model does: found out by behaviour, not by a list of models.

Three questions. *Isolation*: with the tokens of one branch replaced, do its siblings stay as they are to the last
bit? A layer that mixes rows by their order (a convolution, a recurrence) fails it. *Comparison*: are the numbers
those of the plain scorer? *Masks*: are the masks that the model asks for causal, with at most a sliding window?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.base.errors import ModelError
from metashot.engine.models.own_head import head_input
from metashot.engine.scoring.interception import AttentionCall, UnsharedAttentionError, attention_handled_by
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.request import BestScorer, Request, targets_only
from metashot.engine.scoring.ropes import RopeRegimes

PROBE_PREFIX = 40
PROBE_BRANCH = 12
_STRIDE = 7919
_LONGEST_PROBE = 320
"""Windows and regimes within this length are crossed by the probe; longer ones by the first request that does."""

_MAX_DIFFERENCE_NATS = 1e-3
"""Largest difference to the plain scorer in float32, at any token."""

_MEAN_HALF_DIFFERENCE_NATS = 0.1
"""Largest mean difference in half precision, where single tokens of a good model differ by up to 0.3; as many times
more as the scores' standard deviation exceeds 1, since rounding grows with the logits."""


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


def borders_of(model: PreTrainedModel, windows: set[int]) -> list[int]:
    """Lengths, in order, from which on the model computes in another way."""
    return sorted(windows | RopeRegimes.of(model).borders)


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
    return difference_to_plain(model, first, ours)


def mixes_batches(model: PreTrainedModel, length: int) -> bool:
    """Whether the rows of a batch change each other's scores in the model itself, as in LLM.int8().

    It looks for large activations over all rows of a product, and multiplies their columns in another precision.
    """
    first, second = (_branching(model, length, replaced) for replaced in (False, True))
    return _leak(*(score_plain(model, requests, batch_size=3) for requests in (first, second))) > (
        _MAX_DIFFERENCE_NATS
    )


def _leak(ours: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest change of the first and last of three branches whose middle one was replaced."""
    return max(float((ours[i] - others[i]).abs().max()) for i in (0, 2))


def difference_to_plain(
    model: PreTrainedModel, requests: Sequence[Request], ours: Sequence[Tensor]
) -> str | None:
    """In words how scores differ from the plain scorer's, or None if they do not."""
    try:
        plain = score_plain(model, requests, batch_size=len(requests))
    except ModelError:
        return None  # NaN weights: `score` says which request.
    expected = torch.cat(plain)
    differences = (torch.cat(list(ours)) - expected).abs()
    if model.dtype == torch.float32:
        worst, limit, kind = float(differences.max()), _MAX_DIFFERENCE_NATS, "up to"
    else:
        spread = max(1.0, float(expected.std(correction=0)))
        worst, limit, kind = float(differences.mean()), _MEAN_HALF_DIFFERENCE_NATS * spread, "on average"
    return None if worst <= limit else f"its scores differ from plain ones by {kind} {worst:.2g} nats"


def _branching(model: PreTrainedModel, length: int, replaced: bool) -> list[Request]:
    """Three branches of a common prefix; `replaced` gives the middle one other tokens, but its first."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    # Special tokens, such as those that stand for images, live at the ends of vocabularies.
    low, high = (8, min(vocabulary, 4096) - 8) if vocabulary >= 64 else (0, vocabulary)
    tokens = [low + _STRIDE * (i + 1) % (high - low) for i in range(length + 4 * PROBE_BRANCH)]
    prefix = tuple(tokens[: length - PROBE_BRANCH])
    branches = [tokens[length + PROBE_BRANCH * i : length + PROBE_BRANCH * (i + 1)] for i in range(4)]
    middle = branches[1] if not replaced else [branches[1][0], *branches[3][1:]]
    return [Request(prefix, tuple(branch)) for branch in (branches[0], middle, branches[2])]
