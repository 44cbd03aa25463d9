"""What scoring a list of requests costs, counted exactly and without any weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from metashot.engine.scoring.request import Request
from metashot.engine.scoring.trie import TokenTrie, build_trie


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """Exact counts for one list of requests.

    Attributes:
        requests: how many.
        tokens_computed: tokens that the engine runs through the model: distinct prefixes, each once.
        tokens_naive: tokens of all requests, each run alone and without padding.
        tokens_scored: target tokens with a log-probability, over all requests.
        positions_scored: distinct prefixes at which the vocabulary is needed.
        pairs_computed: (query, key) pairs of one attention layer over `tokens_computed`.
        pairs_scored: the pairs among them whose query is a scored position.
        pairs_naive: (query, key) pairs of one attention layer over `tokens_naive`.
        longest: tokens of the longest request.
    """

    requests: int
    tokens_computed: int
    tokens_naive: int
    tokens_scored: int
    positions_scored: int
    pairs_computed: int
    pairs_scored: int
    pairs_naive: int
    longest: int

    def flops(self, config: Any) -> int:
        """Floating-point operations of the engine's matrix products (a multiply-add is two).

        In the last layer only keys and values are needed for every token; queries, attention, the output
        projection and the MLP are needed at scored positions only.
        """
        size = ModelSize.of(config)
        tokens, scored = self.tokens_computed, self.positions_scored
        linear = size.layers * tokens * size.layer_weights
        linear -= (tokens - scored) * (size.layer_weights - size.key_value_weights)
        attention = (size.layers - 1) * self.pairs_computed + self.pairs_scored
        return 2 * linear + 4 * size.attention_width * attention + 2 * scored * size.head_weights

    def flops_unique(self, config: Any) -> int:
        """Operations for the distinct tokens through every layer in full, logits at scored positions."""
        size = ModelSize.of(config)
        linear = size.layers * self.tokens_computed * size.layer_weights
        attention = size.layers * self.pairs_computed
        return (
            2 * linear + 4 * size.attention_width * attention + 2 * self.positions_scored * size.head_weights
        )


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Widths of a decoder, read from its transformers config; estimates where a config says it in its own words.

    Attributes:
        layers: number of blocks.
        hidden: width of the residual stream.
        attention_width: query heads times head size.
        key_value_width: key heads times head size; the mean of keys and values where they differ.
        inner: width inside the MLP that a token passes: with experts, that of all it is sent to.
        stored_inner: width of all experts together.
        gated: whether the MLP has a gate (three matrices instead of two).
        vocabulary: number of tokens.
        experts_per_token: MLPs that a token is sent to; 1 without experts.
        query_rank: width that queries are first projected to (multi-head latent attention), or None.
        key_value_rank: the same for keys and values.
    """

    layers: int
    hidden: int
    attention_width: int
    key_value_width: int
    inner: int
    stored_inner: int
    gated: bool
    vocabulary: int
    experts_per_token: int = 1
    query_rank: int | None = None
    key_value_rank: int | None = None

    @classmethod
    def of(cls, config: Any) -> ModelSize:
        """Read a transformers config, of the text part where there are several; the widest layer where layers differ."""
        config = _Widest(config.get_text_config())
        hidden, heads = int(config.hidden_size), int(getattr(config, "num_attention_heads", None) or 1)
        keys = values = int(getattr(config, "head_dim", None) or hidden // heads)
        groups = int(getattr(config, "num_key_value_heads", None) or heads)
        rank = getattr(config, "kv_lora_rank", None)
        if rank:  # every query head has keys and values of its own once they are projected
            keys, values, groups = config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim, heads
        dense = getattr(config, "intermediate_size", None)
        experts = _Experts.of(config, int(dense or getattr(config, "n_inner", None) or 4 * hidden))
        return cls(
            layers=int(config.num_hidden_layers),
            hidden=hidden,
            attention_width=heads * keys,
            key_value_width=groups * (keys + values) // 2,
            inner=experts.inner,
            stored_inner=experts.stored_inner,
            experts_per_token=experts.per_token,
            gated=dense is not None,
            vocabulary=int(config.vocab_size),
            query_rank=getattr(config, "q_lora_rank", None) if rank else None,
            key_value_rank=rank,
        )

    @property
    def key_value_weights(self) -> int:
        """Weights of one layer's key and value projections."""
        if self.key_value_rank:
            return self.key_value_rank * (self.hidden + 2 * self.key_value_width)
        return 2 * self.hidden * self.key_value_width

    @property
    def layer_weights(self) -> int:
        """Matrix weights of one layer that a token meets."""
        return self._attention_weights + self._matrices * self.hidden * self.inner

    @property
    def stored_weights(self) -> int:
        """Matrix weights of the model, all experts and the vocabulary once."""
        layer = self._attention_weights + self._matrices * self.hidden * self.stored_inner
        return self.layers * layer + self.head_weights

    @property
    def head_weights(self) -> int:
        """Weights of the projection to the vocabulary."""
        return self.hidden * self.vocabulary

    @property
    def _matrices(self) -> int:
        return 3 if self.gated else 2

    @property
    def _attention_weights(self) -> int:
        """Queries, keys, values and output."""
        queries = self.hidden * self.attention_width
        if self.query_rank:
            queries = self.query_rank * (self.hidden + self.attention_width)
        return queries + self.key_value_weights + self.hidden * self.attention_width


class _Widest:
    """A config whose numbers that differ by layer, in lists or by kind of layer, are their largest."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(self._config, name)
        except RuntimeError:  # transformers' word for a number of which each layer has its own
            value = [getattr(layer, name) for layer in self._config.per_layer_config]
        parts: Any = list(value.values()) if isinstance(value, Mapping) else value
        if (
            isinstance(parts, list | tuple)
            and parts
            and all(isinstance(one, int) for one in cast(Any, parts))
        ):
            return max(cast(Sequence[int], parts))
        return value


@dataclass(frozen=True, slots=True)
class _Experts:
    """Width inside the MLP that one token passes, that of all experts, and how many a token is sent to."""

    inner: int
    stored_inner: int
    per_token: int = 1

    @classmethod
    def of(cls, config: Any, dense: int) -> _Experts:
        """Read the usual names; `dense` is the width without experts."""
        names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
        experts = next((value for name in names if (value := getattr(config, name, None))), 0)
        chosen = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_k", None) or 0
        if not isinstance(experts, int) or experts <= 1 or not isinstance(chosen, int) or chosen < 1:
            return cls(dense, dense)
        width = int(getattr(config, "moe_intermediate_size", None) or dense)
        shared = int(getattr(config, "shared_expert_intermediate_size", None) or 0)
        shared += width * int(getattr(config, "n_shared_experts", None) or 0)
        return cls(chosen * width + shared, experts * width + shared, chosen)


def plan_requests(requests: Sequence[Request]) -> ScoringPlan:
    """Count what `PrefixScorer.score(requests)` computes, and what scoring each request alone would."""
    return plan_trie(requests, build_trie(requests))


def plan_trie(requests: Sequence[Request], trie: TokenTrie) -> ScoringPlan:
    """`plan_requests` for requests whose trie is at hand."""
    scored = np.unique(trie.pair_rows)
    lengths = np.array([request.length for request in requests if request.scored], dtype=np.int64)
    return ScoringPlan(
        requests=len(requests),
        tokens_computed=trie.rows,
        tokens_naive=int(lengths.sum()),
        tokens_scored=len(trie.pair_rows),
        positions_scored=len(scored),
        pairs_computed=int((trie.depths + 1).sum()),
        pairs_scored=int((trie.depths[scored] + 1).sum()),
        pairs_naive=int((lengths * (lengths + 1) // 2).sum()),
        longest=max((request.length for request in requests), default=0),
    )
