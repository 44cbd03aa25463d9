"""Logits at chosen positions, or of given states, through the model's own forward pass.

Architectures scale, cap or shift what comes out of their vocabulary projection (Granite, Cohere, Falcon-H1,
Gemma 2), so the projection alone is not the model. These functions leave everything around it to the model and
only choose what goes in. Any code that wants logits at a few positions may use them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from metashot.base.errors import ModelError


def output_embedding(model: nn.Module) -> nn.Module:
    """The module that projects to the vocabulary, also below a PEFT wrapper.

    Raises:
        ModelError: the model has none.
    """
    head: nn.Module | None = _causal(model).get_output_embeddings()
    if head is None:
        raise ModelError("model", f"{type(model).__name__} has no output embeddings", "use a language model")
    return head


@contextmanager
def head_input(model: nn.Module, change: Callable[[Tensor], Tensor]) -> Generator[list[Tensor]]:
    """Inside, the output embedding reads `change(states)` in the place of states [batch, length, d].

    Args:
        model: a language model, also below a PEFT wrapper.
        change: gives what is projected, [..., d]; the model's logits then are [..., vocabulary].

    Yields:
        What was projected, call after call.
    """
    projected: list[Tensor] = []

    def exchange(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        del module
        projected.append(change(cast(Tensor, arguments[0])))
        return (projected[-1], *arguments[1:])

    handle = output_embedding(model).register_forward_pre_hook(exchange)
    try:
        yield projected
    finally:
        handle.remove()


def logits_at(model: nn.Module, rows: Tensor, columns: Tensor, **inputs: Any) -> Tensor:
    """The model's logits at positions (rows[i], columns[i]); no other position is projected.

    Args:
        model: a causal or encoder-decoder language model, also below a PEFT wrapper.
        rows: [n].
        columns: [n].
        inputs: of the model's forward pass.

    Returns:
        [n, vocabulary].

    Raises:
        ModelError: the model's forward pass does not call its output embeddings, or several times.
    """

    def chosen(states: Tensor) -> Tensor:
        if states.dim() != 3:
            raise ModelError(
                "model",
                f"{type(model).__name__} projects states {list(states.shape)} to its vocabulary, not one a token",
                "use a causal language model",
            )
        return states[rows, columns]

    with head_input(model, chosen) as projected:
        logits = cast(Tensor, model(**{"use_cache": False, **inputs}).logits)
    if len(projected) != 1:
        raise ModelError(
            "model",
            f"{type(model).__name__} calls its output embeddings {len(projected)} times in a forward pass",
            "use an architecture with one vocabulary projection",
        )
    return logits.reshape(len(rows), -1)


def logits_of(model: nn.Module, states: Tensor) -> Tensor:
    """The model's logits for last hidden states of your own, [batch, tokens, d] to [batch, tokens, vocabulary]."""
    causal = _causal(model)
    with _in_place_of_decoder(causal, states):
        # The decoder gives `states` whatever it is asked; these embeddings only carry their shape.
        return cast(Any, causal)(inputs_embeds=states, use_cache=False).logits


def decoder(model: nn.Module) -> nn.Module:
    """The model without its vocabulary projection, also below a PEFT wrapper."""
    return cast(nn.Module, cast(Any, _causal(model)).get_decoder())


@contextmanager
def _in_place_of_decoder(causal: PreTrainedModel, states: Tensor) -> Generator[None]:
    inner: Any = decoder(causal)

    def given(*arguments: Any, **named: Any) -> _Given:
        del arguments, named
        return _Given(last_hidden_state=cast(Any, states))

    inner.forward = given
    try:
        yield
    finally:
        del inner.forward


class _Given(BaseModelOutputWithPast):
    """A decoder's output without whatever else an architecture has (cross attentions, router logits)."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


def _causal(model: nn.Module) -> PreTrainedModel:
    wrapped: Any = model
    return wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
