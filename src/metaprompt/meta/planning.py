"""What SUPMER's stages would cost here: tokens counted on drawn tasks, time from one measured step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from metashot.engine.training.loop import LoopConfig
from metashot.metaprompt.batch import PromptExample
from metashot.metaprompt.meta.drawing.tasks import MetaTask
from metashot.metaprompt.meta.learner import PromptLearner
from metashot.metaprompt.meta.steps.inner_loop import query_accuracy

_DRAWN_STEPS = 20


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, prompt included and padding not, of one measured step on this machine.

    Attributes:
        trained: with gradients by the prompt.
        read: forward only.
    """

    trained: float
    read: float


@dataclass(frozen=True, slots=True)
class Price:
    """One line of a plan.

    Attributes:
        what: the work.
        count: how often it is done, in words.
        trained_tokens: tokens that run with gradients, in all.
        read_tokens: tokens that run forward only.
        seconds: estimate.
    """

    what: str
    count: str
    trained_tokens: int
    read_tokens: int
    seconds: float


def price_meta_training(learner: PromptLearner, loop: LoopConfig) -> tuple[list[Price], Speed]:
    """Lines for meta-training and its evaluations. Runs one outer step on a copy of nothing: the learner is spent.

    Args:
        learner: a new one; its prompt and psi are changed by the measured step.
        loop: steps and evaluations.
    """
    length = learner.settings.prompt_length
    steps = range(0, _DRAWN_STEPS * learner.stream.steps_per_draw, learner.stream.steps_per_draw)
    drawn = [step_tokens(learner.stream.step_tasks(step), length) for step in steps]
    started = time.perf_counter()
    learner.train_step(0)
    trained = drawn[0] / (time.perf_counter() - started)
    held_out = learner.stream.test_tasks(
        learner.settings.test_tasks_per_format, learner.settings.test_queries
    )
    read = read_speed(learner, held_out[:1])
    speed = Speed(trained, read)
    outer = int(np.mean(drawn)) * loop.steps
    evaluations = loop.steps // loop.evaluate_every if loop.evaluate_every else 0
    support = sum(tokens(task.support, length) for task in held_out) * evaluations
    query = 2 * sum(tokens(task.query, length) for task in held_out) * evaluations
    queries = sum(len(task.query) for task in held_out)
    return [
        Price("meta-training", f"{loop.steps} outer steps", outer, 0, outer / speed.trained),
        Price(
            "its evaluations",
            f"{evaluations} of {queries} held-out queries",
            support,
            query,
            support / speed.trained + query / speed.read,
        ),
    ], speed


def tokens(examples: Sequence[PromptExample], prompt_length: int) -> int:
    """Tokens of contexts behind a prompt."""
    return sum(prompt_length + len(example.input_ids) for example in examples)


def step_tokens(tasks: Sequence[MetaTask], prompt_length: int) -> int:
    """Tokens of one outer step: support, query and augmentation, each once."""
    return sum(
        tokens(part, prompt_length)
        for task in tasks
        for part in (task.support, task.query, task.augmentation)
    )


def read_speed(learner: PromptLearner, tasks: Sequence[MetaTask]) -> float:
    """Tokens a second of a forward pass over the queries of `tasks`."""
    prompts = learner.prompt.detach().expand(len(tasks), *learner.prompt.shape)
    started = time.perf_counter()
    with torch.no_grad():
        query_accuracy(
            learner.backbone,
            prompts,
            [t.query for t in tasks],
            [t.label_ids for t in tasks],
            learner.rules.passes,
        )
    spent = time.perf_counter() - started
    return sum(tokens(task.query, len(learner.prompt)) for task in tasks) / spent
