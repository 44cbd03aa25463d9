"""What scoring a list of requests costs, counted exactly and without any weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metashot.engine.scoring.request import Request
from metashot.engine.scoring.trie import TokenTrie, build_trie


@dataclass(frozen=True, slots=True)
class Plan:
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

    def flops_naive(self, config: Any) -> int:
        """Operations when each request runs alone, unpadded, with logits at every position."""
        size = ModelSize.of(config)
        linear = self.tokens_naive * (size.layers * size.layer_weights + size.head_weights)
        return 2 * linear + 4 * size.attention_width * size.layers * self.pairs_naive


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Widths of a decoder, read from its transformers config.

    Attributes:
        layers: number of blocks.
        hidden: width of the residual stream.
        attention_width: query heads times head size.
        key_value_width: key heads times head size.
        inner: width inside the MLP.
        gated: whether the MLP has a gate (three matrices instead of two).
        vocabulary: number of tokens.
    """

    layers: int
    hidden: int
    attention_width: int
    key_value_width: int
    inner: int
    gated: bool
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> ModelSize:
        """Read a config of GPT-2's, GPT-J's or Llama's kind."""
        hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
        head_size = getattr(config, "head_dim", None) or hidden // heads
        inner = getattr(config, "intermediate_size", None)
        return cls(
            layers=int(config.num_hidden_layers),
            hidden=hidden,
            attention_width=heads * head_size,
            key_value_width=(getattr(config, "num_key_value_heads", None) or heads) * head_size,
            inner=int(inner or getattr(config, "n_inner", None) or 4 * hidden),
            gated=inner is not None,
            vocabulary=int(config.vocab_size),
        )

    @property
    def key_value_weights(self) -> int:
        """Weights of one layer's key and value projections."""
        return 2 * self.hidden * self.key_value_width

    @property
    def layer_weights(self) -> int:
        """Matrix weights of one layer."""
        mlp = (3 if self.gated else 2) * self.hidden * self.inner
        return 2 * self.hidden * self.attention_width + self.key_value_weights + mlp

    @property
    def head_weights(self) -> int:
        """Weights of the projection to the vocabulary."""
        return self.hidden * self.vocabulary


def plan_requests(requests: Sequence[Request]) -> Plan:
    """Count what `PrefixScorer.score(requests)` computes, and what scoring each request alone would."""
    return plan_trie(requests, build_trie(requests))


def plan_trie(requests: Sequence[Request], trie: TokenTrie) -> Plan:
    """`plan_requests` for requests whose trie is at hand."""
    scored = np.unique(trie.pair_rows)
    lengths = np.array([request.length for request in requests if request.scored], dtype=np.int64)
    return Plan(
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
