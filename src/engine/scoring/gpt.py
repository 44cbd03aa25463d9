"""GPT-2 and GPT-J on flat rows, over the modules of transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.engine.scoring.architecture import Rotation, fused, linear_head, no_rotation, rotate_pairs
from metashot.engine.scoring.attention import Kernel
from metashot.engine.scoring.vocabulary import Head


class GPT2:
    """GPT-2: absolute positions, one fused projection for queries, keys and values."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._body: Any = model.transformer
        self.layers = len(self._body.h)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Token plus position embedding."""
        return self._body.wte(ids) + self._body.wpe(positions)

    def rotation(self, hidden: Tensor, positions: Tensor) -> Rotation:
        """None."""
        return no_rotation(hidden)

    def window(self, layer: int) -> int | None:
        """None."""
        return None

    def kernel(self, layer: int) -> Kernel:
        """Scaled by head size, and by the layer's number where the config says so."""
        return Kernel(self._body.h[layer].attn.scaling)

    def attention_input(self, layer: int, hidden: Tensor) -> Tensor:
        """First layer norm."""
        return self._body.h[layer].ln_1(hidden)

    def keys_values(self, layer: int, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """The last two thirds of the fused projection."""
        width = normed.shape[1]
        keys, values = self._project(layer, normed, slice(width, 3 * width)).split(width, dim=1)
        return self._split_heads(layer, keys), self._split_heads(layer, values)

    def queries(self, layer: int, normed: Tensor, rotation: Rotation) -> Tensor:
        """The first third of the fused projection."""
        return self._split_heads(layer, self._project(layer, normed, slice(0, normed.shape[1])))

    def finish(self, layer: int, hidden: Tensor, normed: Tensor, attention: Tensor) -> Tensor:
        """Sequential residuals: attention, then MLP."""
        block = self._body.h[layer]
        hidden = block.attn.c_proj(attention).add_(hidden)
        inner = fused(block.mlp.act)(block.mlp.c_fc(block.ln_2(hidden)))
        return hidden.add_(block.mlp.c_proj(inner))

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Last layer norm."""
        return self._body.ln_f(hidden)

    def head(self) -> Head:
        """Tied to the token embedding."""
        return linear_head(self._model)

    def _project(self, layer: int, normed: Tensor, columns: slice) -> Tensor:
        projection = self._body.h[layer].attn.c_attn
        return torch.addmm(projection.bias[columns], normed, projection.weight[:, columns])

    def _split_heads(self, layer: int, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (-1, self._body.h[layer].attn.head_dim))


class GPTJ:
    """GPT-J: interleaved rotary positions on part of each head, attention and MLP in parallel."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._body: Any = model.transformer
        self.layers = len(self._body.h)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Token embedding."""
        return self._body.wte(ids)

    def rotation(self, hidden: Tensor, positions: Tensor) -> Rotation:
        """From the model's own table [positions, rotated size], sines first."""
        table = self._body.h[0].attn.embed_positions.to(hidden.device)[positions].to(hidden.dtype)
        sine, cosine = table[:, None].chunk(2, dim=-1)
        return cosine, sine

    def window(self, layer: int) -> int | None:
        """None."""
        return None

    def kernel(self, layer: int) -> Kernel:
        """Scaled by head size."""
        return Kernel(1 / self._body.h[layer].attn.scale_attn)

    def attention_input(self, layer: int, hidden: Tensor) -> Tensor:
        """The one layer norm of the block."""
        return self._body.h[layer].ln_1(hidden)

    def keys_values(self, layer: int, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Separate projections without bias."""
        attention = self._body.h[layer].attn
        keys = attention.k_proj(normed).unflatten(1, (-1, attention.head_dim))
        return rotate_pairs(keys, rotation), attention.v_proj(normed).unflatten(1, (-1, attention.head_dim))

    def queries(self, layer: int, normed: Tensor, rotation: Rotation) -> Tensor:
        """Rotated like the keys."""
        attention = self._body.h[layer].attn
        return rotate_pairs(attention.q_proj(normed).unflatten(1, (-1, attention.head_dim)), rotation)

    def finish(self, layer: int, hidden: Tensor, normed: Tensor, attention: Tensor) -> Tensor:
        """Attention and MLP read the same norm and add to the same residual."""
        block = self._body.h[layer]
        inner = fused(block.mlp.act)(block.mlp.fc_in(normed))
        return block.attn.out_proj(attention).add_(block.mlp.fc_out(inner)).add_(hidden)

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Last layer norm."""
        return self._body.ln_f(hidden)

    def head(self) -> Head:
        """With a bias."""
        return linear_head(self._model)
