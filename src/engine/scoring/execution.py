"""One pass of a model over a token trie, in batches that fit the memory."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metashot.base.errors import ModelError
from metashot.engine.models.own_head import head_input
from metashot.engine.scoring.batch import TrieBatch
from metashot.engine.scoring.batches import next_cut, rows_for_budget
from metashot.engine.scoring.interception import UnsharedAttentionError, attention_handled_by
from metashot.engine.scoring.last_layer import reading_only
from metashot.engine.scoring.memory import is_out_of_memory
from metashot.engine.scoring.path import PathCache
from metashot.engine.scoring.projection import Projection
from metashot.engine.scoring.request import Progress
from metashot.engine.scoring.trie import Ints, TokenTrie

_logger = logging.getLogger(__name__)

_PENDING_POSITIONS = 512
"""Scored positions are collected over batches, so that the vocabulary's weights are read for many at once."""


_MOST_DIFFERENCE = 1e-4
"""A kept token computed anew differs by rounding only: its keys and values, relative to the largest of a layer."""


class PrefixChangedError(Exception):
    """What was kept of a prefix is not what the model computes now."""


@dataclass(slots=True)
class _Pending:
    """Final states [positions, d] whose vocabulary is still to come, and the pairs that read them."""

    hidden: list[Tensor] = field(default_factory=list)
    rows: list[Ints] = field(default_factory=list)
    pairs: list[Ints] = field(default_factory=list)
    count: int = 0


class TriePass:
    """One pass over one trie; `execute` it once.

    Args:
        model: a causal language model whose attention the engine can do.
        projection: its head.
        last_layer: its last layer, if it may be cut to the rows that are read.
        trie: what to compute.
        budget: bytes for activations and caches, None for the default of `rows_for_budget`.
        anchor: see `TrieBatch`.
        keeps_states: keep the state at each request's answer, `states` [requests, d] when the pass is done (zero for
            requests without a scored token).
        known: keys and values of the trie's first rows, a path, from an earlier call.
        known_rows: that many; all but the last of them are not computed.
        keep: rows of a path whose keys and values are kept, `kept` when the pass is done (None without room).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        projection: Projection,
        last_layer: nn.Module | None,
        trie: TokenTrie,
        budget: int | None,
        anchor: int | None = None,
        *,
        keeps_states: bool = False,
        known: PathCache | None = None,
        known_rows: int = 0,
        keep: Ints | None = None,
    ) -> None:
        self.states: Tensor | None = None
        self._request_of = _first_pairs(trie) if keeps_states else None
        self._model, self._projection, self._last_layer = model, projection, last_layer
        self._trie, self._anchor = trie, anchor
        self._known, self._first_row = known, max(known_rows - 1, 0)
        self._path = PathCache() if known is None else known.copy(self._first_row)
        self._keep = keep if keep is not None and len(keep) else None
        self.kept: PathCache | None = None
        if self._keep is not None:
            left_out = int((self._keep < self._first_row).sum())
            self.kept = PathCache() if known is None else known.copy(left_out)
        self._layers: int | None = None
        self._pending = _Pending()
        self._pair_order = np.argsort(trie.pair_rows, kind="stable")
        self._sorted_pair_rows = trie.pair_rows[self._pair_order]
        self._log_probs = torch.empty(len(trie.pair_rows), 2, dtype=torch.float32)
        depth = int(trie.depths.max(initial=0)) + 1
        self._rows = rows_for_budget(model.config, model.dtype, model.device, budget, depth)

    def execute(self, on_progress: Progress | None) -> Tensor:
        """Float32 [pairs, 2] on the CPU, see `vocabulary.token_log_probs`.

        Raises:
            PrefixChangedError: the last known row is not what it was.
        """
        start, total = self._first_row, self._trie.rows
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
        self.kept = None  # its memory is wanted
        if self._model.device.type == "cuda":
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
        """Run rows `start .. stop - 1` through the model, and keep the final states that are read."""
        first, last = np.searchsorted(self._sorted_pair_rows, [start, stop])
        scored, pair_positions = np.unique(self._sorted_pair_rows[first:last] - start, return_inverse=True)
        kept = None if self._keep is None or self.kept is None else (self._keep, self.kept)
        expected = self._known if start == self._first_row else None
        batch = TrieBatch(self._trie, start, stop, self._path, self._anchor, kept, expected)
        read = torch.from_numpy(scored)
        states: list[Tensor] = []

        def keep_read(hidden: Tensor) -> Tensor:
            states.append(hidden[0] if hidden.shape[1] == len(read) else hidden[0, read.to(hidden.device)])
            return hidden[:, :1]

        model, inputs = self._model, batch.inputs(self._model.device)
        with ExitStack() as stack:
            stack.enter_context(attention_handled_by(model, batch))
            stack.enter_context(head_input(model, keep_read))
            if self._last_layer is not None:
                stack.enter_context(reading_only(self._last_layer, batch, read, batch.rows))
            model(**inputs, use_cache=False)
        if batch.difference > _MOST_DIFFERENCE:
            raise PrefixChangedError
        self._check_calls(batch.calls)
        batch.commit()
        self._pending.hidden += states
        self._pending.rows.append(pair_positions + self._pending.count)
        self._pending.pairs.append(self._pair_order[first:last])
        self._pending.count += len(scored)

    def _check_calls(self, calls: int) -> None:
        """Keys are filed under the number of the call, so it must be the same in every batch."""
        self._layers = self._layers or calls
        if calls != self._layers:
            raise UnsharedAttentionError(f"it calls its attention {self._layers} times, then {calls} times")

    def _flush(self) -> None:
        """Log-probabilities of everything pending."""
        pending, self._pending = self._pending, _Pending()
        if not pending.count:
            return
        hidden = torch.cat(pending.hidden)
        pairs = np.concatenate(pending.pairs)
        rows = torch.from_numpy(np.concatenate(pending.rows)).to(hidden.device)
        tokens = torch.from_numpy(self._trie.pair_tokens[pairs]).to(hidden.device)
        log_probs = self._projection.log_probs(hidden, rows, tokens)
        self._log_probs[torch.from_numpy(pairs)] = log_probs.cpu()
        if self._request_of is not None:
            requests = torch.from_numpy(self._request_of[pairs])
            first = requests >= 0
            if self.states is None:
                self.states = torch.zeros(len(self._trie.offsets) - 1, hidden.shape[1])
            self.states[requests[first]] = hidden[rows[first.to(rows.device)]].float().cpu()


def _first_pairs(trie: TokenTrie) -> Ints:
    """[pairs] the request of which a pair is the first, else -1."""
    found = np.full(len(trie.pair_rows), -1, dtype=np.int64)
    scored = np.flatnonzero(np.diff(trie.offsets))
    found[trie.offsets[scored]] = scored
    return found
