"""A language model made ready for training: precision, LoRA, checkpointed activations, compilation, DDP and FSDP.

Distribution and mixed precision are accelerate's, LoRA is PEFT's; this file only chooses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from metashot.base.components.values import hold_to_choices
from metashot.base.errors import ConfigError, ModelError
from metashot.engine.models.activations import fuse_gelu
from metashot.engine.models.attention_dropout import set_attention_dropout
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.checkpoint import distinct_tensors
from metashot.engine.training.config import OptimizerConfig, TrainableConfig
from metashot.engine.training.low_rank import (
    adapter_weights,
    put_adapter_weights,
    with_lora,
    write_adapter_config,
)
from metashot.engine.training.optimizers import Updater, build_optimizer
from metashot.engine.training.sharded import sharded_like

if TYPE_CHECKING:
    from accelerate import Accelerator

Loss = TypeVar("Loss", bound=nn.Module)
_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class TrainableModel(Generic[Loss]):
    """A loss module, its optimizer and whatever accelerate wrapped around them (`module`; `loss` is the bare one).

    Args:
        language_model: what to train; its weights are changed in place.
        make_loss: wraps the (possibly LoRA) model into a module whose output is the loss.
        settings: how to compute.
        optimizer: which optimizer.
        total_steps: length of its schedule.

    Raises:
        ConfigError: a setting this machine cannot fulfil, or a package that is missing.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        make_loss: Callable[[PreTrainedModel], Loss],
        settings: TrainableConfig,
        optimizer: OptimizerConfig,
        total_steps: int,
    ) -> None:
        self.settings = settings
        self.language_model = language_model
        self.tokenizer = language_model.tokenizer
        device = language_model.model.device
        _check(settings, language_model.model, device)
        self.model = with_lora(language_model.model, settings.lora)
        _configure(self.model, settings)
        self.accelerator = _accelerator(settings.precision, device)
        self.loss = make_loss(self.model)
        # Private: the layers that FSDP wraps one by one; accelerate looks for them here, on the module it is given.
        cast(Any, self.loss)._no_split_modules = getattr(self.model, "_no_split_modules", None)
        inner = build_optimizer(self.loss.named_parameters(), optimizer)
        self.module, self.optimizer = self.accelerator.prepare(self.loss, inner)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.updater = Updater(parameters, self.optimizer, optimizer, total_steps, clip=self._clip)

    @property
    def device(self) -> torch.device:
        """This process' device."""
        return self.accelerator.device

    @property
    def trained_weights(self) -> tuple[int, int]:
        """How many weights are trained, and how many there are, the update's included."""
        own = [(one.numel(), one.requires_grad) for one in self.loss.parameters()]
        return sum(size for size, trained in own if trained), sum(size for size, _ in own)

    @property
    def sharded(self) -> bool:
        """Whether a forward pass needs all ranks, since each holds a part of the weights."""
        return isinstance(self.module, FSDPModule)

    @contextmanager
    def scoring(self) -> Generator[None]:
        """The bare model ready for forward passes of its own, without the loss module around it."""
        self.model.eval()
        root = self.module if isinstance(self.module, FSDPModule) else None
        if root is not None:
            root.unshard()  # the layers gather theirs by themselves
        try:
            yield
        finally:
            if root is not None:
                root.reshard()
            self.model.train()

    def loss_backward(self, inputs: Any, *, last: bool) -> Tensor:
        """Forward and backward of one micro-batch; gradients are averaged over ranks on the `last` one.

        Returns:
            The detached loss, scalar.
        """
        waiting: AbstractContextManager[Any] = nullcontext()
        if not last:
            waiting = self.accelerator.no_sync(self.module)
        with waiting:
            loss = self.module(inputs)
            self.accelerator.backward(loss)
        return loss.detach()

    def _clip(self, parameters: Any, clip_norm: float) -> Any:
        return self.accelerator.clip_grad_norm_(parameters, clip_norm)

    def weights(self) -> dict[str, Tensor]:
        """Trained weights under the model's own names, sharded if they are; with LoRA the update alone, as PEFT names it."""
        if self.settings.lora is not None:
            return adapter_weights(self.model)
        return distinct_tensors(self.model.state_dict())

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` returned."""
        if self.settings.lora is not None:
            put_adapter_weights(self.model, weights)
            return
        own = self.model.state_dict()
        placed = {name: sharded_like(tensor, own.get(name, tensor)) for name, tensor in weights.items()}
        missing, unexpected = self.model.load_state_dict(placed, strict=False)
        tied = set(own) - set(distinct_tensors(own))
        if set(missing) - tied or unexpected:
            raise ValueError(f"weights {sorted({*missing, *unexpected} - tied)[:3]} do not fit")

    def state(self) -> dict[str, Any]:
        """Optimizer state and loss scale, as a tree for a checkpoint."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        scaler = self.accelerator.scaler
        if scaler is not None:
            state["scaler"] = scaler.state_dict()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned; gradients of a step that was given up are gone."""
        self.optimizer.zero_grad(set_to_none=True)
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        by_number = {
            number: {
                key: sharded_like(value, parameters[number])
                if isinstance(value, Tensor) and value.shape == parameters[number].shape
                else value
                for key, value in entry.items()
            }
            for number, entry in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict({**state["optimizer"], "state": by_number})
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def export(self, folder: Path) -> None:
        """Write config and tokenizer, so that the checkpoint folder loads as a model, or as a PEFT adapter."""
        if self.settings.lora is not None:
            write_adapter_config(self.model, self.language_model, folder)
        else:
            self.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _check(settings: TrainableConfig, model: PreTrainedModel, device: torch.device) -> None:
    hold_to_choices(settings, "trainer")
    if settings.precision == "float16" and device.type == "cpu":
        raise ConfigError("trainer.precision", "float16 training needs a GPU", "use bfloat16 or float32")
    if model.dtype != torch.float32 and settings.lora is None:
        raise ConfigError(
            "model.dtype",
            f"{str(model.dtype).removeprefix('torch.')} weights lose small updates",
            "train with model.dtype=float32 and choose trainer.precision, or train trainer.lora on the frozen weights",
        )
    if getattr(model, "is_quantized", False) and settings.lora is None:
        raise ConfigError(
            "model.quantization",
            "quantized weights cannot be trained, only what stays unquantized beside them would be",
            "train a LoRA update on them: trainer.lora={r: 8, alpha: 16}",
        )
    if model.config.is_encoder_decoder:
        raise ModelError(
            "model", "is an encoder-decoder; meta-training needs a causal LM", "use a GPT-like model"
        )


def _configure(model: PreTrainedModel, settings: TrainableConfig) -> None:
    model.train()
    fuse_gelu(model)
    if settings.attention_dropout is not None:
        set_attention_dropout(model, settings.attention_dropout)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if settings.lora is not None:
            model.enable_input_require_grads()
    if settings.compile:
        base = cast(Any, model).get_base_model() if settings.lora is not None else model
        base.base_model.forward = torch.compile(base.base_model.forward, dynamic=True)


def _accelerator(precision: str, device: torch.device) -> Accelerator:
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError:
        raise ConfigError(
            "trainer", "training needs the package accelerate", "pip install 'metashot[train]'"
        ) from None
    _check_launch(device)
    # Private: a second training in one process may choose another precision; accelerate keeps the first one's, and
    # its public way out (`Accelerator.free_memory`) does not forget it.
    AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    return Accelerator(mixed_precision=_PRECISIONS[precision], cpu=device.type == "cpu")


def _check_launch(device: torch.device) -> None:
    """Refuse what `accelerate launch` asks for and this machine or a checkpoint cannot do."""

    def asked(name: str) -> bool:
        return os.environ.get(name, "false").lower() in ("1", "true", "yes")

    if asked("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigError(
            "accelerate",
            "distributed_type DEEPSPEED keeps optimizer shards that a checkpoint here does not hold",
            "use experiments/launch/fsdp2.yaml, which shards weights, gradients and optimizer as ZeRO-3 does",
        )
    if not asked("ACCELERATE_USE_FSDP"):
        return
    if device.type == "cpu":
        raise ConfigError(
            "accelerate",
            "distributed_type FSDP shards over GPUs, and this process has none; accelerate would train unsharded",
            "launch with torchrun, which averages gradients of whole models on CPUs",
        )
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError(
            "accelerate",
            "fsdp_version 1 flattens weights, which a checkpoint cannot name",
            "set fsdp_version: 2",
        )
