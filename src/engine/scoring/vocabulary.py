"""Log-probabilities at scored positions by a tiled log-sum-exp over the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_TILE_ROWS = 512
_TILE_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """The projection to the vocabulary.

    Attributes:
        weight: [vocabulary, hidden].
        bias: [vocabulary] or None.
        softcap: logits become `softcap * tanh(logits / softcap)`, as in Gemma 2.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None


def token_log_probs(head: Head, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of some tokens and of the best ones, with never more than a tile of logits in memory.

    Args:
        head: the projection.
        hidden: [positions, hidden] final states.
        rows: [pairs] position of each wanted token, sorted.
        tokens: [pairs] the tokens.

    Returns:
        Float32 [pairs, 2] in nats: of the token, and of the most probable token at its position.
    """
    out = torch.empty(len(rows), 2, dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), _TILE_ROWS):
        stop = min(start + _TILE_ROWS, len(hidden))
        first, last = torch.searchsorted(rows, torch.tensor([start, stop], device=rows.device)).tolist()
        pairs = slice(first, last)
        out[pairs] = _tile_log_probs(head, hidden[start:stop], rows[pairs] - start, tokens[pairs])
    return out


def _tile_log_probs(head: Head, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """`token_log_probs` for a tile of positions: running maximum and sum over tiles of the vocabulary."""
    highest = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
    total = torch.zeros(len(hidden), 1, device=hidden.device)
    chosen = torch.zeros(len(rows), device=hidden.device)
    for start in range(0, len(head.weight), _TILE_TOKENS):
        stop = min(start + _TILE_TOKENS, len(head.weight))
        logits = _logits(head, hidden, start, stop)
        inside = torch.nonzero((tokens >= start) & (tokens < stop)).squeeze(1)
        chosen[inside] = logits[rows[inside], tokens[inside] - start]
        new_highest = torch.maximum(highest, logits.amax(1, keepdim=True))
        total = total * torch.exp(highest - new_highest) + logits.sub_(new_highest).exp_().sum(
            1, keepdim=True
        )
        highest = new_highest
    normalizer = highest + total.log()
    return torch.stack([chosen, highest.squeeze(1)[rows]], dim=1) - normalizer[rows]


def chosen_and_best(logits: Tensor, tokens: Tensor) -> Tensor:
    """The same from whole logits [positions, vocabulary] and a token [positions] for each: float32 [positions, 2]."""
    logits = logits.float()
    chosen, best = logits.gather(1, tokens[:, None]).squeeze(1), logits.amax(1)
    return torch.stack([chosen, best], dim=1) - logits.logsumexp(1, keepdim=True)


def _logits(head: Head, hidden: Tensor, start: int, stop: int) -> Tensor:
    bias = None if head.bias is None else head.bias[start:stop]
    logits = float32_product(hidden, head.weight[start:stop])
    if bias is not None:
        logits += bias
    if head.softcap is not None:
        logits = torch.tanh_(logits.div_(head.softcap)).mul_(head.softcap)
    return logits


def float32_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """`hidden @ weight.T` in float32, for hidden [positions, d] and weight [tokens, d] of any precision.

    A CPU has no product of half-precision operands with a float32 result, so there the weights are widened, a tile
    of them at a time.
    """
    if weight.dtype == torch.float32:
        return functional.linear(hidden, weight)
    if weight.device.type == "cuda":
        return torch.mm(hidden.to(weight.dtype), weight.T, out_dtype=torch.float32)
    wide = hidden.float()
    return torch.cat([functional.linear(wide, part.float()) for part in weight.split(_TILE_TOKENS)], dim=1)
