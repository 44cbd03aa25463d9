"""Schedules at their corners, parameter groups, updates against torch, and refused settings."""

from __future__ import annotations

from functools import partial
from typing import Any

import bitsandbytes
import pytest
import torch

from metashot.base.errors import ConfigError
from metashot.base.identity import identity_of
from metashot.engine.training.config import OptimizerConfig, adamw
from metashot.engine.training.optimizers import (
    Updater,
    build_optimizer,
    constant_factor,
    learning_rate_at,
    linear_factor,
    state_bytes_per_weight,
)


def test_linear_schedule_rises_over_the_warmup_and_falls_to_zero() -> None:
    factors = [linear_factor(step, total_steps=10, warmup_steps=2) for step in (0, 1, 2, 6, 9, 10, 11)]
    assert factors == [0.0, 0.5, 1.0, 0.5, 0.125, 0.0, 0.0]


def test_without_warmup_the_first_step_has_the_full_rate_as_in_the_released_runs() -> None:
    assert linear_factor(0, total_steps=30_000, warmup_steps=0) == 1.0
    assert learning_rate_at(OptimizerConfig(learning_rate=1e-5), 15_000, 30_000) == 5e-6


def test_constant_schedule_stays_at_one_after_the_warmup() -> None:
    assert [constant_factor(step, total_steps=9, warmup_steps=4) for step in (0, 2, 4, 9)] == [
        0.0,
        0.5,
        1.0,
        1.0,
    ]


def test_biases_and_norms_get_no_weight_decay() -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(layer.named_parameters(), OptimizerConfig(weight_decay=0.1))
    assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [
        (0.1, 1),
        (0.0, 1),
    ]


def test_an_update_clips_to_the_norm_and_steps_as_plain_sgd() -> None:
    # gradient (3, 4) has norm 5; clipped to 1 it is (0.6, 0.8); rate 0.5 -> (1, 1) - 0.5 * (0.6, 0.8)
    weight = torch.nn.Parameter(torch.ones(2))
    rule = OptimizerConfig(learning_rate=0.5, clip_norm=1.0, algorithm=torch.optim.SGD)
    updater = Updater([weight], build_optimizer([("weight", weight)], rule), rule, total_steps=10)
    (weight * torch.tensor([3.0, 4.0])).sum().backward()
    report = updater.apply(0)
    assert report == {"grad_norm": 5.0, "learning_rate": 0.5}
    assert torch.allclose(weight.data, torch.tensor([0.7, 0.6]), atol=1e-5)
    assert weight.grad is None


def test_eight_bit_state_takes_about_a_quarter_of_the_bytes() -> None:
    eight = partial(bitsandbytes.optim.AdamW8bit, betas=(0.9, 0.995))
    plain, small = (state_bytes_per_weight(OptimizerConfig(algorithm=one)) for one in (adamw(), eight))
    assert plain == pytest.approx(8, abs=0.01)
    assert 3.5 < plain / small < 4.0
    assert state_bytes_per_weight(OptimizerConfig(algorithm=torch.optim.SGD)) == 0


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RMSprop", "Adafactor", "RAdam"])
def test_any_class_of_torch_may_be_the_algorithm(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    rule = OptimizerConfig(learning_rate=0.1, algorithm=getattr(torch.optim, name))
    updater = Updater([weight], build_optimizer([("weight", weight)], rule), rule, total_steps=2)
    weight.square().sum().backward()
    updater.apply(0)
    assert bool((weight < 1).all())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"schedule": "cosine"}, "optimizer.schedule: input should be 'linear' or 'constant', got 'cosine'"),
        ({"algorithm": partial(torch.optim.Adam, lr=1.0)}, "lr: is no key of the algorithm .*learning_rate"),
        ({"algorithm": partial(torch.optim.Adam, betas=(2.0, 0.9))}, "Adam: Invalid beta parameter"),
        ({"algorithm": bitsandbytes.optim.PagedAdamW8bit}, "paged state needs a CUDA GPU, not cpu"),
    ],
)
def test_settings_that_cannot_be_fulfilled_are_named(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_optimizer([("weight", torch.nn.Parameter(torch.ones(2, 2)))], OptimizerConfig(**keys))


class Block(torch.nn.Module):
    """One layer with the names that GPT-2 and BERT give."""

    def __init__(self) -> None:
        super().__init__()
        self.c_fc = torch.nn.Linear(2, 3)
        self.ln_1 = torch.nn.LayerNorm(2)
        self.LayerNorm = torch.nn.LayerNorm(2)


@pytest.mark.parametrize(
    ("groups", "decayed"),
    [("matrices", {"c_fc.weight"}), ("released", {"c_fc.weight", "ln_1.weight"})],
)
def test_which_weights_decay(groups: str, decayed: set[str]) -> None:
    block = Block()
    settings = OptimizerConfig(weight_decay=0.1, decay_groups=groups)  # pyright: ignore[reportArgumentType]
    optimizer = build_optimizer(block.named_parameters(), settings)
    inside = {id(one) for group in optimizer.param_groups if group["weight_decay"] for one in group["params"]}
    assert {name for name, one in block.named_parameters() if id(one) in inside} == decayed
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_unknown_decay_groups_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"optimizer\.decay_groups: input should be 'matrices' or 'released', got 'all'"
    ):
        OptimizerConfig(decay_groups="all")  # pyright: ignore[reportArgumentType]


def test_identities_call_the_default_algorithm_by_the_class_of_torch() -> None:
    """So a checkpoint goes on whether its config named the class or the function that makes one."""
    named = OptimizerConfig(algorithm=partial(torch.optim.AdamW, fused=True))
    assert identity_of(OptimizerConfig()) == identity_of(named)
    built = build_optimizer([("w", torch.nn.Parameter(torch.zeros(2, 2)))], OptimizerConfig())
    assert type(built) is torch.optim.AdamW
