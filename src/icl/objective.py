"""The loss of a training sequence, as functions of tensors: the mean over its target tokens, then over sequences."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from metashot.icl.collate import Batch


def weighted_nll(
    logits: Float[Tensor, "targets vocabulary"],
    labels: Int[Tensor, " targets"],
    weights: Float[Tensor, " targets"],
) -> Float[Tensor, ""]:
    """Sum over targets of weight times negative log-likelihood, in float32.

    With weight 1 / (targets of the sequence) / (sequences of the step) the sum over all micro-batches is the mean
    over target tokens, then over sequences, however the sequences are packed, padded or accumulated.
    Source: released MetaICL code (docs/methods.md, loss and meta-training).

    Args:
        logits: [targets, vocabulary].
        labels: [targets] ids.
        weights: [targets].

    Returns:
        Scalar.
    """
    return (functional.cross_entropy(logits.float(), labels, reduction="none") * weights).sum()


class TargetLoss(nn.Module):
    """A language model as a module whose forward pass is the loss of a batch (so that DDP and FSDP can wrap it).

    Logits are computed at target positions only: the vocabulary projection of all other positions would be thrown
    away.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The batch's `weighted_nll`, scalar."""
        return weighted_nll(target_logits(self.model, batch), batch.labels, batch.weights)


def target_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits that predict the batch's targets, [targets, vocabulary], equal to the model's own at those places."""
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.segment_mask is not None:
        inputs |= {"attention_mask": batch.segment_mask, "position_ids": batch.position_ids}
    hidden: Tensor = _decoder(model)(**inputs).last_hidden_state
    head = cast(nn.Module, model.get_output_embeddings())
    logits: Tensor = head(hidden[batch.rows, batch.columns])
    cap = getattr(model.config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def _decoder(model: PreTrainedModel) -> nn.Module:
    """The model without its vocabulary projection, also below a PEFT wrapper."""
    anything = cast(Any, model)
    inner = anything.get_base_model() if hasattr(model, "peft_config") else anything
    return cast(nn.Module, inner.base_model)
