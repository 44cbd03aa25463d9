"""How many bytes a forward and backward pass keeps, estimated from a model's widths. Needs no torch.

Counted are the tensors that PyTorch keeps for the backward pass, in units of one layer and one token:

    norms         input and output of both: 4 d; with RMS norms, which are written out in transformers, 6 d
    attention     queries, keys and values, its output, and that again in the order of the output projection
    MLP           input and output of the activation: 2 i; with a gate, both branches, its activation, the product: 4 i
    dropout       where the residual stream has any: the masks of two, 2 d
    weights       where attention weights are written out: what softmax, dropout and product keep, of each head and
                  each earlier or later token

While the backward pass goes through a layer, about two layers' worth of gradients are alive beside them.
`experiments/bench_training/bench_cpu_step.py` compares with what PyTorch keeps and what a process takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metashot.engine.models.sizes import attention_dropout, residual_dropout
from metashot.engine.scoring.plan import ModelSize
from metashot.engine.training.config import TrainableConfig

_FLOAT, _HALF = 4, 2
_GRADIENTS = 2
"""Layers' worth of gradients that are alive at a time."""
_LOGIT_COPIES = 3
"""Logits in float32, their log-softmax, and its gradient."""


@dataclass(frozen=True, slots=True)
class ActivationMemory:
    """Bytes of one layer's kept tensors, and of the rest.

    Attributes:
        layers: number of blocks.
        token: of one token in a layer.
        pair: of one pair of tokens in a layer, where attention weights are written out.
        stream: of one token between two layers: all that checkpointing keeps of a layer.
        target: of one position whose logits are computed.
        fixed: whatever the batch: the gradient of the vocabulary before it is added up.
        recomputed: whether layers are computed again in the backward pass.
    """

    layers: int
    token: float
    pair: float
    stream: float
    target: float
    fixed: float
    recomputed: bool

    @classmethod
    def of(cls, config: Any, training: TrainableConfig, *, on_gpu: bool) -> ActivationMemory:
        """Of a model with this transformers config, trained in this way."""
        size, text = ModelSize.of(config), config.get_text_config()
        rest = _FLOAT if training.precision == "float32" else _HALF
        norms = (4, 2) if size.gated else (2, 2)
        masks = 2 * size.hidden if residual_dropout(text) else 0
        inner = (4 if size.gated else 2) * size.inner
        widths = 3 * size.attention_width + 2 * size.key_value_width
        token = _FLOAT * (norms[0] * size.hidden) + rest * (norms[1] * size.hidden + widths + masks + inner)
        return cls(
            layers=size.layers,
            token=token,
            pair=_FLOAT * _written_out(text, training, on_gpu) * int(text.num_attention_heads),
            stream=_FLOAT * size.hidden,
            target=_LOGIT_COPIES * _FLOAT * size.vocabulary,
            fixed=_FLOAT * size.head_weights,
            recomputed=training.gradient_checkpointing,
        )

    def of_sequence(self, tokens: int, targets: int) -> float:
        """Bytes that one more sequence of a forward and backward pass takes."""
        layer = self.token * tokens + self.pair * tokens**2
        kept = self.layers * (self.stream * tokens if self.recomputed else layer)
        return kept + (_GRADIENTS + self.recomputed) * layer + self.target * targets


def _written_out(config: Any, training: TrainableConfig, on_gpu: bool) -> int:
    """Attention weights that are kept per head and pair: PyTorch's kernels keep none, but the one for CPUs has no dropout."""
    asked = training.attention_dropout
    drops = (attention_dropout(config) if asked is None else asked) > 0
    # Private: transformers names the attention of a model nowhere else.
    eager = getattr(config, "_attn_implementation", None) == "eager"
    if drops and (eager or not on_gpu):
        return 3
    return 2 if eager else 0
