"""Any optimizer with a schedule: learning-rate factors as pure functions, parameter groups, and one clipped update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from metashot.base.errors import ConfigError
from metashot.engine.training.config import Algorithm, OptimizerConfig
from metashot.engine.training.sharded import whole

Clip = Callable[[Sequence[nn.Parameter], float], Any]


def linear_factor(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Factor on the learning rate for the 0-based `step`: up over the warmup, down to 0 at `total_steps`.

    Source: released MetaICL code (transformers' linear schedule with warmup 0).
    """
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def constant_factor(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Factor on the learning rate for the 0-based `step`: up over the warmup, then 1."""
    del total_steps
    return min(1.0, step / warmup_steps) if warmup_steps else 1.0


_SCHEDULES = {"linear": linear_factor, "constant": constant_factor}


def learning_rate_at(settings: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate of the 0-based `step`."""
    factor = _SCHEDULES[settings.schedule]
    return settings.learning_rate * factor(step, total_steps=total_steps, warmup_steps=settings.warmup_steps)


_NOT_DECAYED = ("bias", "LayerNorm.weight")
_DECAYS: dict[str, Callable[[str, nn.Parameter], bool]] = {
    "matrices": lambda name, parameter: parameter.dim() >= 2,
    "released": lambda name, parameter: not any(part in name for part in _NOT_DECAYED),
}


def build_optimizer(named: Iterable[tuple[str, nn.Parameter]], settings: OptimizerConfig) -> Optimizer:
    """The optimizer over `named` parameters that are trained, in groups with and without weight decay.

    Raises:
        ConfigError: the algorithm refuses its arguments, or the device.
    """
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    parameters = [parameter for _, parameter in trained]
    decays = _DECAYS[settings.decay_groups]
    groups = [
        {"params": [p for name, p in trained if decays(name, p)], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in trained if not decays(name, p)], "weight_decay": 0.0},
    ]
    name = algorithm_name(settings.algorithm)
    if "Paged" in name and parameters[0].device.type != "cuda":
        raise ConfigError(
            "optimizer.algorithm",
            f"{name}: paged state needs a CUDA GPU, not {parameters[0].device.type}",
            "choose one without pages",
        )
    try:
        filled = [group for group in groups if group["params"]]
        return cast(Optimizer, settings.algorithm(filled, lr=settings.learning_rate))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError("optimizer.algorithm", f"{name}: {reason}", "correct its keys") from error


def algorithm_name(algorithm: Algorithm) -> str:
    """The class of an algorithm, for messages."""
    return str(getattr(getattr(algorithm, "func", algorithm), "__name__", algorithm))


def state_bytes_per_weight(settings: OptimizerConfig) -> float:
    """Bytes of optimizer state for one weight of a large matrix, found by one step on zeros."""
    weight = nn.Parameter(torch.zeros(256, 256))
    optimizer = build_optimizer([("weight", weight)], settings)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return optimizer_state_bytes(optimizer) / weight.numel()


def optimizer_state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all distinct state tensors."""
    seen: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            seen[value.data_ptr()] = value.numel() * value.element_size()
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)

    for state in optimizer.state.values():
        visit(state)
    return sum(seen.values())


def _clip_in_place(parameters: Sequence[nn.Parameter], clip_norm: float) -> torch.Tensor:
    return nn.utils.clip_grad_norm_(parameters, clip_norm)


@dataclass(slots=True)
class Updater:
    """One optimizer with its schedule and clipping; a method with two optimizers holds two of these.

    Attributes:
        parameters: what the optimizer updates, for clipping.
        optimizer: from `build_optimizer`, or any torch optimizer (also one wrapped by accelerate).
        settings: schedule and clipping.
        total_steps: length of the schedule.
        clip: how to clip; accelerate's own under mixed precision or FSDP.
    """

    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    settings: OptimizerConfig
    total_steps: int
    clip: Clip = field(default=_clip_in_place)

    def apply(self, step: int) -> dict[str, float]:
        """Clip the gradients, take the 0-based `step` at its learning rate and zero the gradients.

        Returns:
            `grad_norm` (before clipping) and `learning_rate`.
        """
        rate = learning_rate_at(self.settings, step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = self.clip(self.parameters, self.settings.clip_norm or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"grad_norm": float(whole(norm)), "learning_rate": rate}
