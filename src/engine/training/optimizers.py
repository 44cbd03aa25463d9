"""Optimizers by name, learning-rate schedules as pure functions, and one clipped update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from metashot.engine.errors import ConfigError

_NAMES = ("adamw", "adam8bit", "adafactor", "sgd")

Clip = Callable[[Sequence[nn.Parameter], float], Any]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """One file of `conf/optimizer`.

    Attributes:
        name: `adamw` (torch's fused one), `adam8bit` (bitsandbytes; a quarter of the state's bytes, meant for
            a GPU and slow on a CPU), `adafactor` or `sgd`.
        learning_rate: at the top of the schedule.
        betas: of the Adam family.
        eps: of the Adam family.
        weight_decay: on weights with two or more axes; never on biases and norms.
        paged: keep the 8-bit state in paged GPU memory.
        schedule: `linear` (to 0 at the last step) or `constant`.
        warmup_steps: steps of linear growth from 0.
        clip_norm: largest gradient norm, or 0 for no clipping.
    """

    name: str = "adamw"
    learning_rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    paged: bool = False
    schedule: Literal["linear", "constant"] = "linear"
    warmup_steps: int = 0
    clip_norm: float = 1.0


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


def learning_rate_at(settings: OptimizerSettings, step: int, total_steps: int) -> float:
    """The learning rate of the 0-based `step`."""
    factor = _SCHEDULES[settings.schedule]
    return settings.learning_rate * factor(step, total_steps=total_steps, warmup_steps=settings.warmup_steps)


def check_optimizer(settings: OptimizerSettings, device: torch.device) -> None:
    """Raise ConfigError for a setting that no optimizer here, or not on this device, can fulfil."""
    if settings.name not in _NAMES:
        raise ConfigError("optimizer.name", f"unknown value {settings.name!r}", f"one of {', '.join(_NAMES)}")
    if settings.schedule not in _SCHEDULES:
        raise ConfigError("optimizer.schedule", f"unknown value {settings.schedule!r}", "linear or constant")
    if settings.learning_rate <= 0:
        raise ConfigError("optimizer.learning_rate", f"{settings.learning_rate} is not positive", "try 1e-5")
    if settings.paged and settings.name != "adam8bit":
        raise ConfigError("optimizer.paged", f"{settings.name} has no paged state", "use optimizer=adam8bit")
    if settings.paged and device.type != "cuda":
        raise ConfigError(
            "optimizer.paged", f"paged state needs a CUDA GPU, not {device.type}", "set optimizer.paged=false"
        )


def build_optimizer(named: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings) -> Optimizer:
    """The optimizer over `named` parameters; those with fewer than two axes get no weight decay.

    Raises:
        ConfigError: see `check_optimizer`, or a package that is not installed.
    """
    parameters = [parameter for _, parameter in named if parameter.requires_grad]
    device = parameters[0].device
    check_optimizer(settings, device)
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "adam8bit":
        return _adam8bit(groups, settings)
    if settings.name == "adafactor":
        # Adafactor's second moment is factored; its own beta2 schedule stands in for `betas`.
        return torch.optim.Adafactor(groups, lr=settings.learning_rate)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate)
    fused = device.type in ("cpu", "cuda", "mps", "xpu")
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=fused
    )


def _adam8bit(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise ConfigError(
            "optimizer", "adam8bit needs the package bitsandbytes", "pip install 'metashot[train]'"
        ) from None
    kind = bnb.optim.PagedAdamW8bit if settings.paged else bnb.optim.AdamW8bit
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps)


def optimizer_state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all distinct state tensors (for the benchmark of 8-bit against 32-bit state)."""
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
    settings: OptimizerSettings
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
        return {"grad_norm": float(norm), "learning_rate": rate}
