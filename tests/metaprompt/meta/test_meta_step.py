"""One meta step against explicit formulas, and against a plain per-task loop on real architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from metashot.base.errors import ConfigError
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import Encoding, make_backbone, target_loss
from metashot.metaprompt.batch import PromptBatch, PromptExample, bucket_by_length, collate
from metashot.metaprompt.meta.drawing.tasks import MetaTask
from metashot.metaprompt.meta.steps.inner_loop import PassRules, adapt, query_pass, support_pass
from metashot.metaprompt.meta.steps.interpolation import (
    coefficient_loss,
    domain_similarity,
    gradient_similarity,
)
from metashot.metaprompt.meta.steps.outer_loop import OuterRules, OuterStep, outer_step
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer, RegularizerConfig

CENTERS = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.5, 1.0], [0.25, -1.0], [2.0, 1.0], [0.5, 0.5]])


def example(center: int, bad: bool = False) -> PromptExample:
    return PromptExample((center, 1) if bad else (center,), (0,))


@dataclass
class QuadraticBackbone:
    """A model whose loss is 0.5 |prompt - c|^2 + 1 for an example that carries c: everything can be written down.

    `encode` carries the prompt itself, `decode` gives logits whose cross-entropy on id 0 is the quadratic.
    An example of two tokens gives NaN, for the tests of skipping.
    """

    language_model: Any = None
    pseudo_tokens: Tensor | None = None
    width: int = 2

    def __post_init__(self) -> None:
        self.language_model = SimpleNamespace(
            tokenizer=SimpleNamespace(pad_token_id=0), device=torch.device("cpu"), is_seq2seq=False
        )

    def encode(self, prompts: Tensor, batch: PromptBatch) -> Encoding:
        mask = torch.ones(prompts.shape[:2], dtype=torch.bool)
        return Encoding(prompts, mask, prompts)

    def decode(self, encoding: Encoding, batch: PromptBatch) -> Tensor:
        distance = encoding.states - CENTERS[batch.input_ids[:, 0]][:, None]
        loss = 0.5 * distance.square().sum(dim=(1, 2)) + 1.0
        loss = loss * torch.where(batch.mask.sum(dim=1) > 1, float("nan"), 1.0)
        # log softmax of these two logits is the pair itself, since their exponentials sum to one
        return torch.stack([-loss, torch.log1p(-torch.exp(-loss))], dim=-1)[:, None]

    def interpolate(
        self, first: Encoding, second: Encoding, weight: Tensor, *, mix_padding: bool
    ) -> Encoding:
        return first


RULES = PassRules(max_batch_tokens=64, pad_to=None, state_over_padding=False, mix_padding=False)
CENTROIDS = torch.eye(3)
ALPHA = 0.1


def rules(**changes: object) -> OuterRules:
    defaults: dict[str, object] = {
        "inner_lr": ALPHA, "second_order": False, "coefficient_weight": 1.0, "concentration": 1.0,
        "curriculum_base": 2.0, "last_task_only": False, "constant_similarity": False, "passes": RULES,
    }  # fmt: skip
    return OuterRules(**(defaults | changes))  # pyright: ignore[reportArgumentType]


def identity_regularizer() -> GradientRegularizer:
    """psi with coefficient exactly 1: theta' = theta - alpha g."""
    torch.manual_seed(0)
    regularizer = GradientRegularizer(2, RegularizerConfig(2, 1, True, "none", "near_identity", "row_l2", 4))
    torch.nn.init.constant_(regularizer.output.bias, 200.0)
    return regularizer


def task(
    support: Sequence[int], query: Sequence[int], own: int = 0, other: int = 1, bad: bool = False
) -> MetaTask:
    queries = tuple(example(center) for center in query)
    return MetaTask("toy", (own,), (other,), (0,), tuple(example(c, bad) for c in support), queries, queries)


TASKS = (task((0, 1), (2,)), task((3, 4), (5, 1)), task((2, 2), (4, 0)))


def step(tasks: Sequence[MetaTask], prompt: Tensor, **changes: object) -> OuterStep:
    weights = [[1.0] * len(t.query) for t in tasks]
    return outer_step(
        QuadraticBackbone(), identity_regularizer(), prompt, tasks, weights, CENTROIDS, rules(**changes)
    )


def mean_center(examples: Sequence[PromptExample]) -> Tensor:
    return CENTERS[[e.input_ids[0] for e in examples]].mean(dim=0)


def test_inner_step_is_explicit_autograd_on_a_quadratic():
    """g = theta - mean(c); theta' = theta - alpha g."""
    theta = torch.tensor([[0.3, -0.2], [1.0, 2.0]])
    prompts = theta.expand(3, 2, 2).clone().requires_grad_()
    support = support_pass(QuadraticBackbone(), prompts, [t.support for t in TASKS], RULES)
    for index, one in enumerate(TASKS):
        reference = theta.clone().requires_grad_()
        loss = torch.stack(
            [0.5 * (reference - CENTERS[e.input_ids[0]]).square().sum() + 1 for e in one.support]
        ).mean()
        loss.backward()
        assert reference.grad is not None
        torch.testing.assert_close(support.gradients[index], reference.grad)
        torch.testing.assert_close(support.gradients[index], theta - mean_center(one.support))
        torch.testing.assert_close(support.losses[index], loss.detach())
        torch.testing.assert_close(
            adapt(theta, support.gradients, ALPHA)[index], theta - ALPHA * (theta - mean_center(one.support))
        )


@pytest.mark.parametrize(("second_order", "factor"), [(False, 1.0), (True, 1 - ALPHA)])
def test_outer_gradient_on_a_quadratic(second_order: bool, factor: float):
    """d/dtheta of the query loss at theta' is theta' - c_q, times 1 - alpha when differentiated through the step."""
    prompt = torch.nn.Parameter(torch.tensor([[0.3, -0.2]]))
    result = step(TASKS[:1], prompt, second_order=second_order)
    adapted = prompt.detach() - ALPHA * (prompt.detach() - mean_center(TASKS[0].support))
    torch.testing.assert_close(result.prompt_gradient, factor * (adapted - mean_center(TASKS[0].query)))


@pytest.mark.parametrize("second_order", [False, True])
def test_outer_gradient_of_a_batch_is_the_sum_of_single_tasks(second_order: bool):
    prompt = torch.nn.Parameter(torch.tensor([[0.3, -0.2]]))
    batch = step(TASKS, prompt, second_order=second_order)
    singles = [step([one], prompt, second_order=second_order) for one in TASKS]
    torch.testing.assert_close(batch.prompt_gradient, sum(s.prompt_gradient for s in singles) / 3)
    for index, gradient in enumerate(batch.regularizer_gradients):
        torch.testing.assert_close(gradient, sum(s.regularizer_gradients[index] for s in singles) / 3)


def test_the_released_oddity_lets_only_the_last_task_move_the_prompt():
    prompt = torch.nn.Parameter(torch.tensor([[0.3, -0.2]]))
    released, last = step(TASKS, prompt, last_task_only=True), step(TASKS[-1:], prompt)
    torch.testing.assert_close(released.prompt_gradient, last.prompt_gradient / 3)
    assert not torch.allclose(step(TASKS, prompt).prompt_gradient, last.prompt_gradient / 3)
    for ours, theirs in zip(
        step(TASKS, prompt).regularizer_gradients, released.regularizer_gradients, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradient_similarity_is_measured_and_constant_only_as_an_oddity():
    prompt = torch.nn.Parameter(torch.tensor([[0.3, -0.2]]))
    single = step(TASKS[:1], prompt)
    adapted = prompt.detach() - ALPHA * (prompt.detach() - mean_center(TASKS[0].support))
    expected = gradient_similarity(
        adapted - mean_center(TASKS[0].query), prompt.detach() - mean_center(TASKS[0].support)
    )
    assert single.gradient_similarity == pytest.approx(float(expected))
    assert step(TASKS, prompt, constant_similarity=True).gradient_similarity == 0.5


def test_coefficient_loss_trains_only_the_coefficient_network():
    """With alpha = 0 the query loss says nothing about psi; what is left is (D/2 + G/2 - z)^2."""
    prompt = torch.nn.Parameter(torch.tensor([[0.3, -0.2]]))
    torch.manual_seed(0)
    regularizer = GradientRegularizer(2, RegularizerConfig(2, 1, True, "none", "near_identity", "row_l2", 4))
    result = outer_step(
        QuadraticBackbone(), regularizer, prompt, TASKS[:1], [[1.0]], CENTROIDS, rules(inner_lr=0.0)
    )
    raw = prompt.detach() - mean_center(TASKS[0].support)
    bent, z = regularizer(raw, prompt.detach().mean(dim=0))
    domain = domain_similarity(CENTROIDS[[0]], CENTROIDS[[1]])
    similarity = gradient_similarity(prompt.detach() - mean_center(TASKS[0].query), bent.detach())
    expected = torch.autograd.grad(
        coefficient_loss(z, domain, similarity), list(regularizer.parameters()), allow_unused=True
    )
    for got, want in zip(result.regularizer_gradients, expected, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want)


def test_a_task_without_a_number_is_skipped_and_named():
    prompt = torch.nn.Parameter(torch.tensor([[0.3, -0.2]]))
    sick = task((0, 1), (2,), bad=True)
    result = step([sick, TASKS[1]], prompt)
    assert result.skipped == (0,)
    torch.testing.assert_close(result.prompt_gradient, step(TASKS[1:2], prompt).prompt_gradient / 2)
    assert all(torch.isfinite(g).all() for g in result.regularizer_gradients)


def test_second_order_and_the_last_task_oddity_exclude_each_other():
    with pytest.raises(ConfigError, match="second_order"):
        rules(second_order=True, last_task_only=True)


def examples(count: int, seq2seq: bool, seed: int) -> list[PromptExample]:
    generator = torch.Generator().manual_seed(seed)
    made: list[PromptExample] = []
    for _ in range(count):
        length = int(torch.randint(3, 20, (1,), generator=generator))
        context = tuple(torch.randint(20, 400, (length,), generator=generator).tolist())
        answer = int(torch.randint(20, 400, (1,), generator=generator))
        made.append(PromptExample(context, (2, answer) if seq2seq else (answer,)))
    return made


def test_batched_support_equals_a_loop_over_tasks(language_model: LanguageModel):
    """Per-task gradients and states do not depend on batching, bucketing or padding."""
    backbone = make_backbone(language_model)
    supports = [examples(5, language_model.is_seq2seq, seed) for seed in range(3)]
    theta = torch.randn(4, backbone.width)
    batched = support_pass(backbone, theta.expand(3, 4, -1).clone().requires_grad_(), supports, RULES)
    for index, group in enumerate(supports):
        prompt = theta.clone().requires_grad_()
        losses, states = [], []
        for one in group:
            batch = collate([one], pad_id=0, device=torch.device("cpu"), length=40)
            encoding = backbone.encode(prompt[None], batch)
            losses.append(target_loss(backbone.decode(encoding, batch), batch)[0])
            states.append(encoding.states[0][encoding.mask[0]].mean(dim=0))
        (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), prompt)
        torch.testing.assert_close(batched.gradients[index], gradient, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(
            batched.states[index], torch.stack(states).mean(dim=0), rtol=1e-3, atol=1e-4
        )


def test_query_weights_one_and_zero_are_plain_query_losses(language_model: LanguageModel):
    backbone = make_backbone(language_model)
    query = [examples(3, language_model.is_seq2seq, 1)]
    other = [examples(3, language_model.is_seq2seq, 2)]
    prompts = torch.randn(1, 4, backbone.width)
    for weight, plain in ((1.0, query), (0.0, other)):
        mixed = query_pass(backbone, prompts, query, other, [[weight] * 3], RULES)
        alone = support_pass(backbone, prompts.clone().requires_grad_(), plain, RULES)
        torch.testing.assert_close(mixed.losses, alone.losses, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mixed.gradients, alone.gradients, rtol=1e-3, atol=1e-5)


def test_second_order_runs_through_attention(language_model: LanguageModel):
    backbone = make_backbone(language_model)
    prompt = torch.nn.Parameter(torch.randn(3, backbone.width) * 0.1)
    seq2seq = language_model.is_seq2seq
    query = tuple(examples(2, seq2seq, 5))
    tasks = [MetaTask("toy", (0,), (1,), (0,), tuple(examples(2, seq2seq, 4)), query, query)]
    torch.manual_seed(0)
    regularizer = GradientRegularizer(
        backbone.width, RegularizerConfig(2, 1, True, "none", "near_identity", "row_l2", 4)
    )
    first, second = (
        outer_step(
            backbone,
            regularizer,
            prompt,
            tasks,
            [[1.0, 1.0]],
            CENTROIDS,
            rules(second_order=order, inner_lr=1.0),
        )
        for order in (False, True)
    )
    assert torch.isfinite(second.prompt_gradient).all()
    assert not torch.allclose(first.prompt_gradient, second.prompt_gradient, rtol=1e-3)
    torch.testing.assert_close(first.losses, second.losses, rtol=1e-4, atol=1e-4)


def test_buckets_hold_each_index_once_and_stay_within_the_limit():
    lengths = [5, 30, 5, 7, 90, 6, 31]
    batches = bucket_by_length(lengths, 64)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 64
