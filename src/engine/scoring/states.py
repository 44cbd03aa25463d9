"""Hidden states at the answer: the last layer's in the scoring pass, any layer's by itself, and one put in its place.

The answer's position is that of a request's last context token, whose state predicts the answer's first token.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metashot.base.errors import ModelError
from metashot.engine.models.exclusive import exclusive
from metashot.engine.models.own_head import head_input, logits_at
from metashot.engine.scoring.plain import padded
from metashot.engine.scoring.precision import float32_between_products
from metashot.engine.scoring.request import Request
from metashot.engine.scoring.vocabulary import chosen_and_best


@torch.inference_mode()
def answer_states(model: PreTrainedModel, requests: Sequence[Request], batch_size: int = 8) -> Tensor:
    """What the output embedding reads at the answer of each request, one context after the other: float32 [requests, d].

    Args:
        model: a causal language model.
        requests: each with a context.
        batch_size: contexts a forward pass.
    """
    found: list[Tensor] = []
    with exclusive(model), float32_between_products(model):
        for batch in _batches(requests, batch_size):
            ids, mask = padded([request.context for request in batch], model.device)
            rows, last = _last(batch, ids.device)
            states: list[Tensor] = []
            with head_input(model, lambda hidden, at=(rows, last), into=states: _kept(hidden[at], into)):
                model(input_ids=ids, attention_mask=mask, use_cache=False)
            found.append(states[0].float().cpu())
    return torch.cat(found)


@torch.inference_mode()
def layer_states(model: PreTrainedModel, requests: Sequence[Request], batch_size: int = 8) -> Tensor:
    """What each decoder layer gives at the answer of each request: float32 [requests, layers, d].

    Raises:
        ModelError: see `decoder_layers`.
    """
    layers = decoder_layers(model)
    found: list[Tensor] = []
    with exclusive(model), float32_between_products(model):
        for batch in _batches(requests, batch_size):
            ids, mask = padded([request.context for request in batch], model.device)
            at = _last(batch, ids.device)
            states: list[Tensor] = []

            def keep(hidden: Tensor, at: Any = at, states: list[Tensor] = states) -> Tensor:
                _kept(hidden[at], states)
                return hidden

            with ExitStack() as stack:
                for layer in layers:
                    stack.enter_context(_changed(layer, keep))
                stack.enter_context(head_input(model, lambda hidden: hidden[:, :1]))
                model(input_ids=ids, attention_mask=mask, use_cache=False)
            found.append(torch.stack([state.float().cpu() for state in states], dim=1))
    return torch.cat(found)


@torch.inference_mode()
def score_with_state(
    model: PreTrainedModel, requests: Sequence[Request], layer: int, state: Tensor, batch_size: int = 8
) -> list[Tensor]:
    """Scores of requests whose answer position carries `state` [d] behind a layer, in place of its own.

    Args:
        model: a causal language model.
        requests: each with a context and a target.
        layer: number of the layer, 1 for the first, behind which the state is put.
        state: what the layer gives there.
        batch_size: requests a forward pass.

    Returns:
        Per request a float32 CPU tensor [request.scored] of log-probabilities in nats.

    Raises:
        ModelError: see `decoder_layers`.
    """
    changed = decoder_layers(model)[layer - 1]
    found: list[Tensor] = []
    with exclusive(model), float32_between_products(model):
        for batch in _batches(requests, batch_size):
            ids, mask = padded([request.context + request.target for request in batch], model.device)
            at = _last(batch, ids.device)
            scored = [slice(len(request.context), request.length) for request in batch]
            predicting = torch.zeros_like(mask, dtype=torch.bool)
            for row, part in enumerate(scored):
                predicting[row, part.start - 1 : part.stop - 1] = True

            def put(hidden: Tensor, at: Any = at) -> Tensor:
                hidden = hidden.clone()
                hidden[at] = state.to(hidden)
                return hidden

            with _changed(changed, put):
                logits = logits_at(
                    model, *predicting.nonzero(as_tuple=True), input_ids=ids, attention_mask=mask
                )
            targets = torch.cat([ids[row, part] for row, part in enumerate(scored)])
            log_probs = chosen_and_best(logits, targets)[:, 0].cpu()
            found += [row.clone() for row in log_probs.split([len(request.target) for request in batch])]
    return found


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a causal model, in order.

    Raises:
        ModelError: it has no single list of as many layers as its config says.
    """
    config: Any = model.config.get_text_config()
    number = int(config.num_hidden_layers)
    found = [one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == number]
    if len(found) != 1 or model.config.is_encoder_decoder:
        raise ModelError(
            "model",
            f"{type(model).__name__} has no one list of {number} decoder layers",
            "use a causal language model, or another method",
        )
    return found[0]


def _batches(requests: Sequence[Request], size: int) -> list[Sequence[Request]]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def _last(batch: Sequence[Request], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns of the last context tokens."""
    columns = torch.tensor([len(request.context) - 1 for request in batch], device=device)
    return torch.arange(len(batch), device=device), columns


def _kept(states: Tensor, into: list[Tensor]) -> Tensor:
    into.append(states)
    return states


@contextmanager
def _changed(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> Generator[None]:
    """Inside, the layer gives `change(states)`; what else it gives stays."""

    def hook(module: nn.Module, arguments: Any, given: Any) -> Any:
        del module, arguments
        return (change(given[0]), *given[1:]) if isinstance(given, tuple) else change(given)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
