"""What can be tuned downstream, behind one face: a soft prompt, the whole model, or a PEFT adapter.

A tunable is made for one cell and leaves the shared model as it found it when it is closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from metashot.base.extras import import_extra
from metashot.metaprompt.backbone import Backbone
from metashot.metaprompt.batch import PromptBatch
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer


class Tunable(Protocol):
    """Something with parameters that reads batches."""

    @property
    def virtual_tokens(self) -> int:
        """Prompt tokens in front of each context."""
        ...

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimizer updates."""
        ...

    def logits(self, batch: PromptBatch) -> tuple[Tensor, Tensor | None]:
        """Logits at the target positions [B, T, V], and the mean state of each example [B, d] if it has one."""
        ...

    def regularize(self, state: Tensor | None) -> float | None:
        """Bend the gradients in place before clipping; the coefficient, or None for methods without psi."""
        ...

    def close(self) -> None:
        """Leave the shared model as it was."""
        ...


@dataclass(slots=True)
class PromptTunable:
    """A soft prompt before a frozen model, with or without psi."""

    backbone: Backbone
    prompt: nn.Parameter
    regularizer: GradientRegularizer | None = None
    state_over_padding: bool = False

    @property
    def virtual_tokens(self) -> int:
        """Prompt length."""
        return self.prompt.shape[0]

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The prompt."""
        return [("prompt", self.prompt)]

    def logits(self, batch: PromptBatch) -> tuple[Tensor, Tensor | None]:
        """Through the backbone."""
        prompts = self.prompt.expand(len(batch.input_ids), *self.prompt.shape)
        encoding = self.backbone.encode(prompts, batch)
        state = None
        if self.regularizer is not None:
            state = encoding.mean(over_padding=self.state_over_padding).detach()
        return self.backbone.decode(encoding, batch), state

    def regularize(self, state: Tensor | None) -> float | None:
        """prompt.grad <- psi(prompt.grad, state), without a graph."""
        if self.regularizer is None or state is None or self.prompt.grad is None:
            return None
        with torch.no_grad():
            self.prompt.grad, coefficient = self.regularizer(self.prompt.grad, state)
        return float(coefficient)

    def close(self) -> None:
        """Nothing was changed."""


@dataclass(slots=True)
class FullTunable:
    """All weights of the model, without a prompt."""

    backbone: Backbone
    original: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Keep the weights and unfreeze the model."""
        model = self.backbone.language_model.model
        self.original = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.requires_grad_(True)

    @property
    def virtual_tokens(self) -> int:
        """None."""
        return 0

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All weights."""
        return list(self.backbone.language_model.model.named_parameters())

    def logits(self, batch: PromptBatch) -> tuple[Tensor, Tensor | None]:
        """Through the backbone with an empty prompt."""
        return _promptless(self.backbone, batch), None

    def regularize(self, state: Tensor | None) -> float | None:
        """Not for this method."""
        del state
        return None

    def close(self) -> None:
        """Put the weights back and freeze them."""
        model = self.backbone.language_model.model
        model.load_state_dict(self.original)
        model.requires_grad_(False)
        model.zero_grad(set_to_none=True)


class LoraTunable:
    """A LoRA adapter on the model's usual target layers, without a prompt."""

    def __init__(self, backbone: Backbone, rank: int, alpha: int, dropout: float) -> None:
        import_extra("peft", "method")
        from peft import LoraConfig, TaskType, get_peft_model

        kind = TaskType.SEQ_2_SEQ_LM if backbone.language_model.is_seq2seq else TaskType.CAUSAL_LM
        config = LoraConfig(
            task_type=kind,
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            # GPT-2 stores its weights transposed.
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in backbone.language_model.model.modules()),
        )
        self.backbone = backbone
        # PEFT puts its layers into the shared model itself; `close` takes them out again.
        self.adapter: Any = get_peft_model(backbone.language_model.model, config)

    @property
    def virtual_tokens(self) -> int:
        """None."""
        return 0

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The adapter's weights."""
        return [(name, p) for name, p in self.adapter.named_parameters() if p.requires_grad]

    def logits(self, batch: PromptBatch) -> tuple[Tensor, Tensor | None]:
        """Through the backbone, whose layers now carry the adapter."""
        return _promptless(self.backbone, batch), None

    def regularize(self, state: Tensor | None) -> float | None:
        """Not for this method."""
        del state
        return None

    def close(self) -> None:
        """Remove the adapter's layers."""
        self.adapter.unload()
        self.backbone.language_model.model.requires_grad_(False)
        if hasattr(self.backbone.language_model.model, "peft_config"):
            del self.backbone.language_model.model.peft_config


class PeftPromptTunable:
    """Virtual tokens of a PEFT model, with PEFT's own forward pass."""

    def __init__(self, backbone: Backbone, adapter: Any) -> None:
        self.backbone = backbone
        self.adapter: Any = adapter.to(backbone.language_model.device)
        self.length = int(adapter.active_peft_config.num_virtual_tokens)

    @property
    def virtual_tokens(self) -> int:
        """Prompt length."""
        return self.length

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What makes the virtual tokens."""
        return [(name, p) for name, p in self.adapter.named_parameters() if p.requires_grad]

    def logits(self, batch: PromptBatch) -> tuple[Tensor, Tensor | None]:
        """Through PEFT."""
        model = self.backbone.language_model.model
        if self.backbone.language_model.is_seq2seq:
            start = torch.full_like(batch.target_ids[:, :1], model.config.decoder_start_token_id)
            decoder = torch.cat([start, batch.target_ids[:, :-1]], dim=1)
            output = self.adapter(
                input_ids=batch.input_ids, attention_mask=batch.mask.long(), decoder_input_ids=decoder
            )
            return output.logits.float(), None
        output = self.adapter(input_ids=batch.input_ids, attention_mask=batch.mask.long())
        last = self.length + batch.mask.sum(dim=1) - 1
        row = torch.arange(len(last), device=last.device)
        return output.logits[row, last][:, None].float(), None

    def regularize(self, state: Tensor | None) -> float | None:
        """Not for this method."""
        del state
        return None

    def close(self) -> None:
        """The wrapper is dropped; the model itself was not changed."""
        self.backbone.language_model.model.requires_grad_(False)


def _promptless(backbone: Backbone, batch: PromptBatch) -> Tensor:
    empty = torch.empty(len(batch.input_ids), 0, backbone.width, device=batch.input_ids.device)
    return backbone.decode(backbone.encode(empty, batch), batch)
