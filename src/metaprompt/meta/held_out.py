"""What a prompt does on held-out meta-tasks: query loss and accuracy around one inner step, beside plain guessing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metashot.metaprompt.backbone import Backbone
from metashot.metaprompt.meta.drawing.tasks import MetaTask
from metashot.metaprompt.meta.steps.inner_loop import PassRules, adapt, query_accuracy, support_pass
from metashot.metaprompt.meta.steps.outer_loop import bend
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer

_Z = 1.96


def guess_loss(tasks: Sequence[MetaTask]) -> float:
    """Mean loss in nats of a uniform guess among each task's label words (log of their number)."""
    return sum(math.log(len(set(task.label_ids))) for task in tasks) / len(tasks)


def accuracy_interval(accuracy: Tensor, queries: Sequence[int], groups: Sequence[str]) -> tuple[float, float]:
    """95 % interval of the mean accuracy over tasks, 0..1.

    The variance of the mean is summed over groups; within a group it is that between its tasks or that of
    independent queries, whichever is larger, since few tasks can agree by chance.

    Args:
        accuracy: of each task, [N].
        queries: query examples of each task.
        groups: format of each task.
    """
    count, variance = len(groups), 0.0
    for name in set(groups):
        own = [index for index, group in enumerate(groups) if group == name]
        values = accuracy[own].double()
        mean, total = float(values.mean()), sum(queries[index] for index in own)
        between = float(values.var(correction=1)) / len(own) if len(own) > 1 else 0.0
        within = mean * (1 - mean) / total
        variance += (len(own) / count) ** 2 * max(between, within)
    center, half = float(accuracy.double().mean()), _Z * math.sqrt(variance)
    return max(0.0, center - half), min(1.0, center + half)


def held_out_metrics(
    backbone: Backbone,
    regularizer: GradientRegularizer | None,
    prompt: Tensor,
    tasks: Sequence[MetaTask],
    inner_lr: float,
    rules: PassRules,
) -> dict[str, float]:
    """Query loss (nats) and accuracy on held-out tasks, before and after one inner step.

    Args:
        backbone: the frozen model, in eval mode.
        regularizer: psi, or None for a plain inner step.
        prompt: [P, d].
        tasks: held-out tasks.
        inner_lr: alpha.
        rules: batching and padding.
    """
    queries, labels = [task.query for task in tasks], [task.label_ids for task in tasks]
    prompts = prompt.detach().expand(len(tasks), *prompt.shape).clone().requires_grad_()
    support = support_pass(backbone, prompts, [task.support for task in tasks], rules)
    with torch.no_grad():
        regularized, coefficient = bend(regularizer, support.gradients, support.states)
        adapted = adapt(prompt.detach(), regularized, inner_lr)
    before, accuracy_before = query_accuracy(backbone, prompts, queries, labels, rules)
    loss, accuracy = query_accuracy(backbone, adapted, queries, labels, rules)
    groups, sizes = [task.format for task in tasks], [len(task.query) for task in tasks]
    low, high = accuracy_interval(accuracy, sizes, groups)
    metrics = {
        "query_loss": float(loss.mean()),
        "guess_loss": guess_loss(tasks),
        "query_accuracy": float(accuracy.mean()),
        "query_accuracy_low": low,
        "query_accuracy_high": high,
        "guess_accuracy": sum(1 / len(set(task.label_ids)) for task in tasks) / len(tasks),
        "queries": float(sum(sizes)),
        "query_loss_unadapted": float(before.mean()),
        "query_accuracy_unadapted": float(accuracy_before.mean()),
        "coefficient": float(coefficient.mean()),
    }
    for name in dict.fromkeys(groups):
        own = [index for index, group in enumerate(groups) if group == name]
        metrics[f"{name}_query_loss"] = float(loss[own].mean())
        metrics[f"{name}_query_accuracy"] = float(accuracy[own].mean())
    return metrics


def describe(metrics: dict[str, float]) -> str:
    """The last evaluation in one line: accuracy with its interval and loss, each beside a guess."""
    better = "above" if metrics["query_accuracy_low"] > metrics["guess_accuracy"] else "not told from"
    return (
        f"held-out accuracy after one inner step {100 * metrics['query_accuracy']:.1f} %"
        f" ({100 * metrics['query_accuracy_low']:.1f} to {100 * metrics['query_accuracy_high']:.1f},"
        f" {metrics['queries']:.0f} queries), {better} guessing ({100 * metrics['guess_accuracy']:.1f} %);"
        f" query loss {metrics['query_loss']:.2f} nats, a uniform guess over the label words {metrics['guess_loss']:.2f}"
    )
