"""Tuning many prompts of one task side by side: every row its own prompt, its own clipping and, if it has one, its psi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from metashot.engine.training.config import OptimizerConfig
from metashot.engine.training.optimizers import Updater, build_optimizer
from metashot.metaprompt.backbone import Backbone, target_loss
from metashot.metaprompt.batch import PromptBatch, collate
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer
from metashot.metaprompt.tuning.loop import LabelledSet, example_order

Curve = dict[int, dict[str, list[float]]]
"""Step -> test set -> accuracy of each row."""


def tune_rows(
    backbone: Backbone,
    starts: Tensor,
    regularizers: Sequence[GradientRegularizer | None],
    train: LabelledSet,
    tests: Mapping[str, LabelledSet],
    *,
    steps: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    seed: int,
    look_at: Sequence[int],
) -> tuple[Tensor, Curve]:
    """Tune R prompts on the same examples in the same order.

    Each row ends where `tune` with `select_on=last` would leave it alone.

    Args:
        backbone: the frozen model.
        starts: first prompts, [R, P, d].
        regularizers: psi of each row, or None.
        train: training examples.
        tests: test sets.
        steps: optimizer steps.
        batch_size: examples of a step.
        optimizer: the rule of every row; clipping is each row's own.
        seed: of the order of examples.
        look_at: numbers of steps after which the tests are taken.

    Returns:
        The tuned prompts [R, P, d], and the accuracies.
    """
    prompts = nn.Parameter(starts.clone())
    updater = Updater(
        [prompts], build_optimizer([("prompts", prompts)], optimizer), optimizer, steps, _clip_rows
    )
    order = example_order(len(train.examples), steps * batch_size, seed)
    curve: Curve = {}
    for step in range(steps + 1):
        if step in look_at:
            curve[step] = {name: accuracies(backbone, prompts.detach(), test) for name, test in tests.items()}
        if step == steps:
            break
        chosen = [train.examples[i] for i in order[step * batch_size : (step + 1) * batch_size]]
        batch = _repeated(collate(chosen, pad_id=0, device=prompts.device), len(starts))
        encoding = backbone.encode(prompts.repeat_interleave(batch_size, dim=0), batch)
        (target_loss(backbone.decode(encoding, batch), batch).sum() / batch_size).backward()
        states = encoding.mean(over_padding=False).detach().view(len(starts), batch_size, -1).mean(dim=1)
        assert prompts.grad is not None
        for row, regularizer in enumerate(regularizers):
            if regularizer is not None:
                with torch.no_grad():
                    prompts.grad[row] = regularizer(prompts.grad[row], states[row])[0]
        updater.apply(step)
    return prompts.detach(), curve


def accuracies(backbone: Backbone, prompts: Tensor, test: LabelledSet) -> list[float]:
    """Share of right answers among the label words, for each of the prompts [R, P, d]."""
    batch = collate(test.examples, pad_id=0, device=prompts.device)
    words, gold = torch.tensor(test.label_ids), torch.tensor(test.labels)
    found: list[float] = []
    with torch.no_grad():
        for prompt in prompts:
            encoding = backbone.encode(prompt.expand(len(test.examples), *prompt.shape), batch)
            chosen = backbone.decode(encoding, batch)[:, 0, words].argmax(dim=1)
            found.append(float((chosen == gold).float().mean()))
    return found


def _repeated(batch: PromptBatch, times: int) -> PromptBatch:
    return PromptBatch(
        *(
            tensor.repeat(times, 1)
            for tensor in (batch.input_ids, batch.mask, batch.target_ids, batch.target_mask)
        )
    )


def _clip_rows(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale the gradient of each row [P, d] down to norm `limit`, as `clip_grad_norm_` does for one prompt."""
    (prompts,) = parameters
    assert prompts.grad is not None
    norms = prompts.grad.flatten(1).norm(dim=1)
    prompts.grad *= (limit / (norms + 1e-6)).clamp(max=1.0)[:, None, None]
    return norms.max()
