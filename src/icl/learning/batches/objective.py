"""The loss of training sequences, as functions of tensors: over target tokens, and over the options of a question."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from metashot.engine.models.own_head import logits_at
from metashot.icl.learning.batches.attention_mask import attention_inputs
from metashot.icl.learning.batches.collate import Batch, OptionTable


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part of the loss counts.

    Attributes:
        token: of the negative log-likelihood of the right answer's tokens (MetaICL).
        option: of the cross-entropy over a question's options, each scored by its mean token log-probability as
            evaluation scores it. Only this part sees a preference for one label whatever the input.
    """

    token: float = 1.0
    option: float = 0.0


def token_nll(
    logits: Float[Tensor, "targets vocabulary"], labels: Int[Tensor, " targets"]
) -> Float[Tensor, " targets"]:
    """Negative log-likelihood of each target, in float32."""
    return functional.cross_entropy(logits.float(), labels, reduction="none")


def weighted_nll(nll: Float[Tensor, " targets"], weights: Float[Tensor, " targets"]) -> Float[Tensor, ""]:
    """Sum over targets of weight times negative log-likelihood.

    With weight 1 / (targets of the sequence) / (sequences of the step) the sum over all micro-batches is the mean
    over target tokens, then over sequences, however the sequences are packed, padded or accumulated.
    Source: released MetaICL code (docs/methods.md, loss and meta-training).

    Args:
        nll: [targets].
        weights: [targets].

    Returns:
        Scalar.
    """
    return (nll * weights).sum()


def option_losses(nll: Float[Tensor, " targets"], table: OptionTable) -> Float[Tensor, " questions"]:
    """Weighted cross-entropy of the right option among all options of its question, by question.

    An option's score is minus its mean token NLL, which is the rule that ranks options in evaluation.

    Args:
        nll: [targets].
        table: which target belongs where.

    Returns:
        [questions]; their sum is the loss.
    """
    scored = table.option >= 0
    sums = torch.zeros(len(table.slot), device=nll.device).index_add(0, table.option[scored], nll[scored])
    shape = (len(table.weights), int(table.slot.max()) + 1)
    scores = torch.full(shape, float("-inf"), device=nll.device)
    scores = scores.index_put((table.question, table.slot), -sums / table.tokens)
    return -scores.log_softmax(dim=-1)[:, 0] * table.weights


class TargetLoss(nn.Module):
    """A language model as a module whose forward pass is the loss of a batch (so that DDP and FSDP can wrap it).

    Logits are computed at target positions only: the vocabulary projection of all other positions would be thrown
    away.
    """

    def __init__(self, model: nn.Module, loss_weights: LossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.loss_weights = loss_weights or LossWeights()
        self.by_task = torch.zeros(0)
        """The last batch's loss divided among its `tasks`, [tasks], without gradient."""

    def forward(self, batch: Batch) -> Tensor:
        """The batch's loss, scalar."""
        nll = token_nll(target_logits(self.model, batch), batch.labels)
        loss = self.loss_weights.token * weighted_nll(nll, batch.weights)
        by_task = torch.zeros(len(batch.tasks), device=nll.device)
        by_task.index_add_(0, batch.task, self.loss_weights.token * nll.detach() * batch.weights)
        if self.loss_weights.option and batch.options is not None:
            by_question = self.loss_weights.option * option_losses(nll, batch.options)
            by_task.index_add_(0, batch.options.task, by_question.detach())
            loss = loss + by_question.sum()
        self.by_task = by_task
        return loss


def target_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits that predict the batch's targets, [targets, vocabulary], equal to the model's own at those places."""
    inputs = {"input_ids": batch.input_ids, **attention_inputs(model, batch.visible, batch.position_ids)}
    return logits_at(model, batch.rows, batch.columns, **inputs)
