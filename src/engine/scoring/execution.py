"""One pass of a model over a token trie, in batches that fit the memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.engine.errors import ModelError
from metashot.engine.scoring.architecture import Architecture
from metashot.engine.scoring.attention import cascade_attention
from metashot.engine.scoring.batches import next_cut, rows_for_budget
from metashot.engine.scoring.layout import Layout, LayoutBuilder
from metashot.engine.scoring.memory import is_out_of_memory
from metashot.engine.scoring.path import PathCache
from metashot.engine.scoring.request import Progress
from metashot.engine.scoring.trie import Ints, TokenTrie
from metashot.engine.scoring.vocabulary import token_log_probs

_logger = logging.getLogger(__name__)

_PENDING_POSITIONS = 512
"""Scored positions are collected over batches, so that the vocabulary's weights are read for many at once."""


@dataclass(slots=True)
class _Pending:
    """Final states [positions, d] whose vocabulary is still to come, and the pairs that read them."""

    hidden: list[Tensor]
    rows: list[Ints]
    pairs: list[Ints]
    count: int = 0


class TriePass:
    """One pass over one trie; `execute` it once."""

    def __init__(
        self, model: PreTrainedModel, architecture: Architecture, trie: TokenTrie, budget: int | None
    ) -> None:
        self._architecture = architecture
        self._trie = trie
        self._device, self._dtype = model.device, model.dtype
        self._head = architecture.head()
        self._path = PathCache(architecture.layers)
        self._pending = _Pending([], [], [])
        self._pair_order = np.argsort(trie.pair_rows, kind="stable")
        self._sorted_pair_rows = trie.pair_rows[self._pair_order]
        self._log_probs = torch.empty(len(trie.pair_rows), dtype=torch.float32)
        depth = int(trie.depths.max(initial=0)) + 1
        self._rows = rows_for_budget(model.config, model.dtype, model.device, budget, depth)

    def execute(self, on_progress: Progress | None) -> Tensor:
        """Float32 [pairs] on the CPU."""
        start, total = 0, self._trie.rows
        while start < total:
            stop = next_cut(self._trie, start, self._rows)
            try:
                self._batch(start, stop)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(stop - start, error)
                continue
            start = stop
            if self._pending.count >= _PENDING_POSITIONS or start == total:
                self._flush()
            if on_progress is not None:
                on_progress(start, total)
        return self._log_probs

    def _shrink(self, rows: int, error: BaseException) -> None:
        self._path.roll_back()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if rows <= 1:
            raise ModelError(
                "model",
                "out of memory while scoring a single token",
                "use a smaller model, model.dtype=bfloat16 or a device with more memory",
            ) from error
        self._rows = rows // 2
        _logger.warning("out of memory with %d tokens at a time: going on with %d", rows, self._rows)

    def _batch(self, start: int, stop: int) -> None:
        """Run rows `start .. stop - 1` through all layers, and leave the next batch's path in the cache."""
        walk, trie, device = self._architecture, self._trie, self._device
        first, last = np.searchsorted(self._sorted_pair_rows, [start, stop])
        scored, pair_positions = np.unique(self._sorted_pair_rows[first:last] - start, return_inverse=True)
        kept, position = self._next_path(start, stop)
        layouts = _Layouts(trie, start, stop, scored, device, self._dtype)
        kept_rows, scored_rows = (torch.from_numpy(rows).to(device) for rows in (kept, scored))

        positions = torch.from_numpy(trie.depths[start:stop]).to(device)
        hidden = walk.embed(torch.from_numpy(trie.tokens[start:stop]).to(device), positions)
        rotation = walk.rotation(hidden, positions)
        for layer in range(walk.layers):
            is_last = layer == walk.layers - 1
            normed = walk.attention_input(layer, hidden)
            keys, values = walk.keys_values(layer, normed, rotation)
            path = self._path.layer(layer, keys)
            if is_last:
                hidden, normed = hidden[scored_rows], normed[scored_rows]
                rotation = (rotation[0][scored_rows], rotation[1][scored_rows])
            if len(hidden):
                queries = walk.queries(layer, normed, rotation)
                layout = layouts.get(walk.window(layer), is_last=is_last)
                attention = cascade_attention(layout, queries, keys, values, path, walk.kernel(layer))
                hidden = walk.finish(layer, hidden, normed, attention)
            self._path.extend(layer, position, keys[kept_rows], values[kept_rows])
        if len(hidden):
            hidden = walk.final_norm(hidden)
        self._path.commit(position + len(kept))
        self._pending.hidden.append(hidden)
        self._pending.rows.append(pair_positions + self._pending.count)
        self._pending.pairs.append(self._pair_order[first:last])
        self._pending.count += len(scored)

    def _next_path(self, start: int, stop: int) -> tuple[Ints, int]:
        """The batch's rows on the next batch's path, and the position of the first of them."""
        trie = self._trie
        if stop == trie.rows:
            return np.zeros(0, dtype=np.int64), 0
        ancestors: list[int] = []
        row = int(trie.parents[stop])
        while row >= start:
            ancestors.append(row - start)
            row = int(trie.parents[row])
        return np.array(ancestors[::-1], dtype=np.int64), int(trie.depths[stop]) - len(ancestors)

    def _flush(self) -> None:
        """Log-probabilities of everything pending."""
        pending, self._pending = self._pending, _Pending([], [], [])
        pairs = np.concatenate(pending.pairs)
        rows = torch.from_numpy(np.concatenate(pending.rows)).to(self._device)
        tokens = torch.from_numpy(self._trie.pair_tokens[pairs]).to(self._device)
        log_probs = token_log_probs(self._head, torch.cat(pending.hidden), rows, tokens)
        self._log_probs[torch.from_numpy(pairs)] = log_probs.cpu()


class _Layouts:
    """The layouts of one batch, built when a layer asks: of all rows, or in the last layer of the scored."""

    def __init__(
        self, trie: TokenTrie, start: int, stop: int, scored: Ints, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._builder = LayoutBuilder.of(trie, start, stop, device, dtype)
        self._selected = {False: np.arange(stop - start), True: scored}
        self._built: dict[tuple[int | None, bool], Layout] = {}

    def get(self, window: int | None, *, is_last: bool) -> Layout:
        """The layout for a window."""
        if (window, is_last) not in self._built:
            self._built[window, is_last] = self._builder.build(self._selected[is_last], window)
        return self._built[window, is_last]
