"""From final states to log-probabilities, through the model's own head."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metashot.engine.models.own_head import head_input, output_embedding
from metashot.engine.scoring.interception import AttentionCall, attention_handled_by
from metashot.engine.scoring.vocabulary import Head, chosen_and_best, token_log_probs

_LOGIT_BYTES = 64 << 20


class Projection(Protocol):
    """The way from final states to log-probabilities."""

    def log_probs(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """See `vocabulary.token_log_probs`: `tokens` [pairs] at the sorted `rows` [pairs] of `hidden` [positions, d]."""
        ...


@torch.inference_mode()
def find_projection(model: PreTrainedModel) -> Projection:
    """The fast one where the model's logits are what its output embedding gives and nothing else."""
    head = output_embedding(model)
    given: list[Any] = []
    watch = head.register_forward_hook(lambda _module, _args, out: given.append(out))
    try:
        # Token 0 is often padding, whose embedding is zero and tells nothing.
        ids = torch.arange(1, 5, device=model.device)[None]
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        watch.remove()
    if type(head) is nn.Linear and torch.equal(given[0].float(), logits.float()):
        return LinearProjection(head)
    return ModelProjection(model)


class LinearProjection:
    """A plain matrix, multiplied a tile of the vocabulary at a time."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head

    def log_probs(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """See `Projection`."""
        return token_log_probs(Head(self._head.weight, self._head.bias), hidden, rows, tokens)


class ModelProjection:
    """Scaled, soft-capped, quantized or adapted heads: the model runs on one token, and its head on the states.

    What that costs beside the head is one token's way through the layers, for many positions.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._vocabulary = int(model.config.get_text_config().vocab_size)

    def log_probs(self, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """See `Projection`."""
        out = torch.empty(len(rows), 2, dtype=torch.float32, device=hidden.device)
        tile = max(1, _LOGIT_BYTES // (4 * self._vocabulary))
        for start in range(0, len(hidden), tile):
            stop = min(start + tile, len(hidden))
            first, last = torch.searchsorted(rows, torch.tensor([start, stop], device=rows.device)).tolist()
            logits = self._logits(hidden[start:stop])
            out[first:last] = chosen_and_best(logits[rows[first:last] - start], tokens[first:last])
        return out

    def _logits(self, hidden: Tensor) -> Tensor:
        token = torch.zeros(1, 1, dtype=torch.long, device=self._model.device)
        with attention_handled_by(self._model, _Nothing()), head_input(self._model, lambda _: hidden[None]):
            out: Any = self._model(input_ids=token, position_ids=token, use_cache=False)
        return out.logits[0]


class _Nothing:
    """Attention that reads nothing, for a forward pass of which only the head counts."""

    def attend(self, call: AttentionCall) -> Tensor:
        """Zeros."""
        return call.queries.new_zeros(*call.queries.shape[:2], call.values.shape[2])
