"""Llama and its kin on flat rows: Mistral, Qwen 2 and 3, Gemma and Gemma 2, over transformers' modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from metashot.engine.scoring.architecture import Rotation, linear_head, rotate_halves
from metashot.engine.scoring.attention import Kernel
from metashot.engine.scoring.vocabulary import Head


class Llama:
    """Rotary positions, grouped-query attention, a gated MLP; norms, windows and soft caps by module."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._body: Any = model.model
        self._config: Any = model.config
        self.layers = len(self._body.layers)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Token embedding, scaled inside the module in Gemma."""
        return self._body.embed_tokens(ids)

    def rotation(self, hidden: Tensor, positions: Tensor) -> Rotation:
        """From the model's own module."""
        cosine, sine = self._body.rotary_emb(hidden[None], positions[None])
        return cosine[0, :, None], sine[0, :, None]

    def window(self, layer: int) -> int | None:
        """Mistral slides in every layer; Qwen and Gemma 2 say which layers do."""
        if self._config.model_type == "mistral":
            return self._config.sliding_window
        return getattr(self._body.layers[layer].self_attn, "sliding_window", None)

    def kernel(self, layer: int) -> Kernel:
        """Scale and soft cap as the attention module holds them."""
        attention = self._body.layers[layer].self_attn
        return Kernel(attention.scaling, getattr(attention, "attn_logit_softcapping", None))

    def attention_input(self, layer: int, hidden: Tensor) -> Tensor:
        """First norm."""
        return self._body.layers[layer].input_layernorm(hidden)

    def keys_values(self, layer: int, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Keys are normed per head in Qwen 3."""
        attention = self._body.layers[layer].self_attn
        keys = attention.k_proj(normed).unflatten(1, (-1, attention.head_dim))
        if hasattr(attention, "k_norm"):
            keys = attention.k_norm(keys)
        return rotate_halves(keys, rotation), attention.v_proj(normed).unflatten(1, (-1, attention.head_dim))

    def queries(self, layer: int, normed: Tensor, rotation: Rotation) -> Tensor:
        """Queries are normed per head in Qwen 3."""
        attention = self._body.layers[layer].self_attn
        queries = attention.q_proj(normed).unflatten(1, (-1, attention.head_dim))
        if hasattr(attention, "q_norm"):
            queries = attention.q_norm(queries)
        return rotate_halves(queries, rotation)

    def finish(self, layer: int, hidden: Tensor, normed: Tensor, attention: Tensor) -> Tensor:
        """Sequential residuals; Gemma 2 also norms what attention and MLP give."""
        block = self._body.layers[layer]
        if self._config.model_type == "gemma2":
            hidden = block.post_attention_layernorm(block.self_attn.o_proj(attention)).add_(hidden)
            inner = block.mlp(block.pre_feedforward_layernorm(hidden))
            return hidden.add_(block.post_feedforward_layernorm(inner))
        hidden = block.self_attn.o_proj(attention).add_(hidden)
        return hidden.add_(block.mlp(block.post_attention_layernorm(hidden)))

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Last norm."""
        return self._body.norm(hidden)

    def head(self) -> Head:
        """Soft-capped in Gemma 2."""
        return linear_head(self._model, getattr(self._config, "final_logit_softcapping", None))
