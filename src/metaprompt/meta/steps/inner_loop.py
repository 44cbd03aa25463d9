"""One adaptation step for many tasks at once: per-task gradients, mean states and adapted prompts.

Every task gets its own copy of the prompt, all tasks run in shared batches of similar length, and one backward pass
gives each copy its own task's gradient. Nothing is accumulated in `.grad`, so no task can erase or leak into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from metashot.metaprompt.backbone import Backbone, Encoding, target_loss
from metashot.metaprompt.batch import PromptBatch, PromptExample, bucket_by_length, collate
from metashot.metaprompt.meta.steps.interpolation import mixed_target_loss


@dataclass(frozen=True, slots=True)
class PassRules:
    """How examples run through the model.

    Attributes:
        max_batch_tokens: padded tokens of one forward pass, prompt included.
        pad_to: pad every context to this many tokens; None pads to the longest of its batch.
        state_over_padding: count padding in the mean state.
        mix_padding: mix real states with the other batch's padding states.
    """

    max_batch_tokens: int
    pad_to: int | None
    state_over_padding: bool
    mix_padding: bool


@dataclass(frozen=True, slots=True)
class SupportPass:
    """What the support sets of N tasks give.

    Attributes:
        gradients: of each task's mean support loss by its prompt, [N, P, d].
        states: mean encoder state of each task's support set, [N, d], detached.
        losses: [N], in nats, detached.
    """

    gradients: Tensor
    states: Tensor
    losses: Tensor


def support_pass(
    backbone: Backbone,
    prompts: Tensor,
    supports: Sequence[Sequence[PromptExample]],
    rules: PassRules,
    *,
    second_order: bool = False,
) -> SupportPass:
    """Gradients of the mean support losses by `prompts` [N, P, d], one prompt for each task.

    Args:
        backbone: the frozen model.
        prompts: must require gradients.
        supports: support examples of each task.
        rules: batching and padding.
        second_order: keep the graph, so that the gradients can be differentiated again.
    """
    gradients = torch.zeros_like(prompts)
    states = prompts.new_zeros(prompts.shape[0], backbone.width)
    losses = prompts.new_zeros(prompts.shape[0])
    # Fused attention has no second derivative; the plain formula has.
    backends: list[SDPBackend] = [SDPBackend.MATH] if second_order else [*_ALL_BACKENDS]
    with sdpa_kernel(backends):
        for owner, share, batch in _batches(backbone, prompts, supports, rules):
            encoding = backbone.encode(prompts[owner], batch)
            loss = target_loss(backbone.decode(encoding, batch), batch) * share
            (part,) = torch.autograd.grad(loss.sum(), prompts, create_graph=second_order)
            gradients = gradients + part
            mean = encoding.mean(over_padding=rules.state_over_padding).detach()
            states = states.index_add(0, owner, mean * share[:, None])
            losses = losses.index_add(0, owner, loss.detach())
    return SupportPass(gradients, states, losses)


_ALL_BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
)


def adapt(prompt: Tensor, regularized: Tensor, inner_lr: float) -> Tensor:
    """theta_i = theta - alpha * psi(g_i): [P, d] and [N, P, d] -> [N, P, d]."""
    return prompt - inner_lr * regularized


@dataclass(frozen=True, slots=True)
class QueryPass:
    """What the query sets of N tasks give at their adapted prompts.

    Attributes:
        gradients: of each task's mean query loss by its adapted prompt, [N, P, d].
        losses: [N], in nats.
    """

    gradients: Tensor
    losses: Tensor


def query_pass(
    backbone: Backbone,
    adapted: Tensor,
    queries: Sequence[Sequence[PromptExample]],
    augmentations: Sequence[Sequence[PromptExample]],
    weights: Sequence[Sequence[float]],
    rules: PassRules,
) -> QueryPass:
    """Gradients of the mean interpolated query losses by the adapted prompts.

    Args:
        backbone: the frozen model.
        adapted: one prompt for each task, [N, P, d].
        queries: query examples of each task.
        augmentations: for each query example its partner.
        weights: lambda of each query example; 1 means no mixing.
        rules: batching and padding.
    """
    leaf = adapted.detach().requires_grad_()
    gradients = torch.zeros_like(leaf)
    losses = leaf.new_zeros(leaf.shape[0])
    pairs = [list(zip(q, a, w, strict=True)) for q, a, w in zip(queries, augmentations, weights, strict=True)]
    flat = [(task, pair) for task, group in enumerate(pairs) for pair in group]
    lengths = [
        leaf.shape[1] + max(len(query.input_ids), len(augmentation.input_ids))
        for _, (query, augmentation, _) in flat
    ]
    for indices in bucket_by_length(lengths, rules.max_batch_tokens):
        chosen = [flat[index] for index in indices]
        owner = torch.tensor([task for task, _ in chosen], device=leaf.device)
        share = torch.tensor([1 / len(pairs[task]) for task, _ in chosen], device=leaf.device)
        weight = torch.tensor([pair[2] for _, pair in chosen], device=leaf.device, dtype=leaf.dtype)
        loss = _mixed_loss(backbone, leaf[owner], [pair for _, pair in chosen], weight, rules) * share
        (part,) = torch.autograd.grad(loss.sum(), leaf)
        gradients += part
        losses = losses.index_add(0, owner, loss.detach())
    return QueryPass(gradients, losses)


def _mixed_loss(
    backbone: Backbone,
    prompts: Tensor,
    pairs: Sequence[tuple[PromptExample, PromptExample, float]],
    weight: Tensor,
    rules: PassRules,
) -> Tensor:
    """Loss of each pair, [B]; the augmentation is not run at all where nothing is mixed."""
    length = max(len(example.input_ids) for pair in pairs for example in pair[:2])
    query = _collate(backbone, [pair[0] for pair in pairs], rules.pad_to or length)
    encoding: Encoding = backbone.encode(prompts, query)
    other = query
    if bool((weight < 1).any()) or rules.mix_padding:
        other = _collate(backbone, [pair[1] for pair in pairs], rules.pad_to or length)
        augmentation = backbone.encode(prompts, other)
        encoding = backbone.interpolate(encoding, augmentation, weight, mix_padding=rules.mix_padding)
    return mixed_target_loss(backbone.decode(encoding, query), query.target_ids, other.target_ids, weight)


def query_accuracy(
    backbone: Backbone,
    adapted: Tensor,
    queries: Sequence[Sequence[PromptExample]],
    labels: Sequence[Sequence[int]],
    rules: PassRules,
) -> tuple[Tensor, Tensor]:
    """Unmixed query loss [N] and accuracy [N] of each task, among its label pieces `labels`; no gradients."""
    losses = adapted.new_zeros(adapted.shape[0])
    correct = adapted.new_zeros(adapted.shape[0])
    position = 1 if backbone.language_model.is_seq2seq else 0
    with torch.no_grad():
        for owner, share, batch in _batches(backbone, adapted, queries, rules):
            logits = backbone.decode(backbone.encode(adapted[owner], batch), batch)
            gold = batch.target_ids[:, position].tolist()
            hits = [
                max(labels[task], key=lambda label, row=row: float(logits[row, position, label])) == gold[row]
                for row, task in enumerate(owner.tolist())
            ]
            losses = losses.index_add(0, owner, target_loss(logits, batch) * share)
            correct = correct.index_add(0, owner, torch.tensor(hits, device=share.device) * share)
    return losses, correct


def _batches(
    backbone: Backbone, prompts: Tensor, groups: Sequence[Sequence[PromptExample]], rules: PassRules
) -> list[tuple[Tensor, Tensor, PromptBatch]]:
    """(task of each row, 1 / size of its task, batch) over all tasks, in buckets of similar length."""
    flat = [(task, example) for task, group in enumerate(groups) for example in group]
    lengths = [prompts.shape[1] + max(len(example.input_ids), rules.pad_to or 0) for _, example in flat]
    batches: list[tuple[Tensor, Tensor, PromptBatch]] = []
    for indices in bucket_by_length(lengths, rules.max_batch_tokens):
        chosen = [flat[index] for index in indices]
        owner = torch.tensor([task for task, _ in chosen], device=prompts.device)
        share = torch.tensor([1 / len(groups[task]) for task, _ in chosen], device=prompts.device)
        batches.append((owner, share, _collate(backbone, [example for _, example in chosen], rules.pad_to)))
    return batches


def _collate(backbone: Backbone, examples: Sequence[PromptExample], length: int | None) -> PromptBatch:
    model = backbone.language_model
    return collate(examples, pad_id=pad_id(model.tokenizer.pad_token_id), device=model.device, length=length)


def pad_id(token_id: object) -> int:
    """A padding id for any tokenizer; padded positions are masked, so any id does."""
    return token_id if isinstance(token_id, int) else 0
