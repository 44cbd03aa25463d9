"""The model's own head at chosen positions only: what the vocabulary costs, paid where it is read.

A model's head may be more than one matrix: scaled (Granite, Cohere), soft-capped (Gemma 2), biased (GPT-J), preceded
by a projection (OPT). So nothing of it is written again here. A hook before the output embedding exchanges the
rows that it reads, and everything around it stays the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from metashot.engine.errors import ModelError


def output_embedding(model: PreTrainedModel) -> nn.Module:
    """The module that projects to the vocabulary.

    Raises:
        ModelError: the model has none.
    """
    head: Any = model.get_output_embeddings()
    if head is None:
        raise ModelError("model", f"{type(model).__name__} has no output embedding", "use a language model")
    return head


@contextmanager
def head_input(model: PreTrainedModel, change: Callable[[Tensor], Tensor]) -> Generator[None]:
    """Inside, the output embedding reads `change(hidden)` in the place of hidden [batch, length, d].

    Args:
        model: a causal or encoder-decoder language model.
        change: gives [batch', length', d]; the model's logits then are [batch', length', vocabulary].
    """
    hook = output_embedding(model).register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def logits_at(
    model: PreTrainedModel, selected: Tensor, forward: Callable[..., Any] | None = None, **inputs: Any
) -> Tensor:
    """Logits at some positions of a batch, through the model's own head; gradients flow as usual.

    `logits_at(model, selected, input_ids=ids)` equals `model(input_ids=ids).logits[selected]`, without ever
    holding logits of the other positions.

    Args:
        model: a causal or encoder-decoder language model.
        selected: bool [batch, length], True at the positions whose logits are wanted (those that *predict* a
            scored token, one before it).
        forward: what to call in the place of `model`, such as its DDP or FSDP wrapper.
        inputs: of the forward pass, such as `input_ids` [batch, length] and `attention_mask`; no `labels`.

    Returns:
        [number selected, vocabulary] in the order of `selected.nonzero()`, in the model's dtype for logits.

    Raises:
        ModelError: the model has no output embedding.
    """
    with head_input(model, lambda hidden: hidden[selected][None]):
        return (forward or model)(**{"use_cache": False, **inputs}).logits[0]
