"""The keys that every training has: its loop, how the model computes, and its optimizer. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, Protocol

from metashot.base.components.values import hold_to_choices
from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect, stands_for
from metashot.base.value_kinds import (
    Count,
    Dropout,
    GivenLine,
    LearningRate,
    Name,
    Positive,
    PositiveShare,
    Weight,
)


@dataclass(frozen=True)
class LoopConfig:
    """`conf/trainer` keys that the loop reads."""

    steps: Positive = 30_000
    """Optimizer steps in all."""
    save_every: Annotated[Count, NoEffect("when a step is kept")] = 1000
    """Steps between checkpoints; 0 saves only at the end."""
    evaluate_every: Count = 0
    """Steps between evaluations; 0 for none."""
    log_every: Annotated[Positive, NoEffect("when a step is told")] = 10
    """Steps between log lines."""
    resume: Annotated[Literal["auto", "never"], NoEffect("where a run goes on")] = "auto"
    """`auto` continues from the newest whole checkpoint if there is one; `never` refuses a folder that holds
    any."""
    best_metric: Annotated[Name, NoEffect("which steps are kept")] = "accuracy"
    """Key of `evaluate`'s metrics that decides about the best checkpoints and early stopping (meta-training:
    `metric` or `accuracy`)."""
    early_stop_evaluations: Annotated[Count, NoEffect("when a run ends, not what its steps do")] = 0
    """Stop after so many evaluations without a better value; 0 for never."""
    on_divergence: Annotated[
        Literal["stop", "rewind"],
        NoEffect("what follows a divergence: a run that stopped may go on by rewind"),
    ] = "stop"
    """What follows when the loss explodes, or loss or weights are no longer numbers: `stop` ends with one line,
    `rewind` goes back to a checkpoint and on with other data, a few times at most. No checkpoint is written then."""
    rewind_steps: Annotated[Positive, NoEffect("what follows a divergence")] = 1
    """How many steps at least `rewind` goes back."""
    progress: Annotated[bool, NoEffect("what is drawn")] = True
    """Draw a progress bar (on rank 0)."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """`trainer.lora` keys, named as PEFT names them."""

    r: Positive = 8
    """Rank of the update."""
    alpha: Positive = 16
    """Its scale times r."""
    dropout: Dropout = 0.0
    """On the update's input."""
    target_modules: tuple[GivenLine, ...] = ()
    """Names of the layers that get one; empty for all linear layers but the vocabulary projection."""
    last_layers: Positive | None = None
    """Only so many of the last transformer layers get one, and no gradient is computed below them; None for
    all."""


@dataclass(frozen=True)
class TrainableConfig:
    """How the model computes while training."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """`float32`, `bfloat16` (autocast, float32 weights) or `float16` (the same with loss scaling; GPU)."""
    attention_dropout: Dropout | None = None
    """Probability with which attention weights are dropped; None keeps the model's published value (GPT-2:
    0.1). At 0 the fused kernel of CPUs applies."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    compile: bool = False
    """Run the transformer through torch.compile."""
    lora: LoraConfig | None = None
    """Train low-rank updates only, or None for all weights."""


class Optimizer(Protocol):
    """What every optimizer of torch has; the class itself would bring torch to every command."""

    param_groups: list[dict[str, Any]]
    state: Any

    def step(self) -> Any:
        """Update the parameters from their gradients."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        ...


Algorithm = Callable[..., Optimizer]
"""A torch optimizer class, or one of a library, with all its arguments but the parameters and the learning rate."""


@stands_for("torch.optim.adamw.AdamW")
def make_adamw(
    params: Any,
    lr: float = 1e-3,
    betas: tuple[Dropout, Dropout] = (0.9, 0.999),
    eps: PositiveShare = 1e-8,
    weight_decay: float = 0.0,
    *,
    amsgrad: bool = False,
    fused: bool = True,
) -> Optimizer:
    """`torch.optim.AdamW` over parameters or parameter groups; torch is imported when it is called."""
    from torch.optim import AdamW

    return AdamW(params, lr, betas, eps, weight_decay, amsgrad, fused=fused)


def adamw(**keys: Any) -> Algorithm:
    """AdamW in torch's fused form, with further arguments."""
    return partial(make_adamw, fused=True, **keys)


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """One file of `conf/optimizer`."""

    learning_rate: LearningRate = 1e-5
    """Learning rate at the top of the schedule."""
    weight_decay: Weight = 0.0
    """Weight decay on the weights that `decay_groups` names."""
    decay_groups: Literal["matrices", "released"] = "matrices"
    """`matrices` (weights with two or more axes, so no bias and no norm) or `released` (the released code's
    names: all but those with `bias` or `LayerNorm.weight` in them; GPT-2 calls its norms `ln_1`, so they
    decay)."""
    schedule: Literal["linear", "constant"] = "linear"
    """`linear` (to 0 at the last step) or `constant`."""
    warmup_steps: Count = 0
    """Steps of linear growth from 0."""
    clip_norm: Weight = 1.0
    """Largest gradient norm, or 0 for no clipping."""
    algorithm: Algorithm = field(default_factory=adamw)
    """Makes the optimizer from parameter groups and `lr`."""

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ConfigError: an unknown schedule, or a key of the algorithm that is set here.
        """
        hold_to_choices(self, "optimizer")
        for key, own in (("lr", "learning_rate"), ("weight_decay", "weight_decay"), ("params", None)):
            if key in getattr(self.algorithm, "keywords", {}):
                way_out = f"set optimizer.{own}" if own else "leave it out"
                raise ConfigError(f"optimizer.algorithm.{key}", "is no key of the algorithm", way_out)


@dataclass(frozen=True, slots=True)
class LrRangeConfig:
    """`find_lr` keys."""

    lowest: LearningRate = 1e-6
    """Learning rate of the first step."""
    highest: LearningRate = 1e-1
    """Learning rate of the last step."""
    steps: Positive = 60
    """Optimizer steps between them, each at a rate higher by the same factor."""

    def __post_init__(self) -> None:
        """Check values.

        Raises:
            ConfigError: no range, or too few steps to see one.
        """
        if not 0 < self.lowest < self.highest:
            raise ConfigError(
                "find_lr.lowest", f"{self.lowest} to {self.highest} is no range", "0 < lowest < highest"
            )
        if self.steps < 10:
            raise ConfigError("find_lr.steps", f"{self.steps} steps show no curve", "at least 10")

    def rate(self, step: int) -> float:
        """The learning rate of the 0-based `step`."""
        return self.lowest * (self.highest / self.lowest) ** (step / (self.steps - 1))
