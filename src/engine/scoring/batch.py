"""One batch of trie rows on its way through the model's layers: the attention, and the path it leaves behind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metashot.engine.scoring.attention import cascade_attention
from metashot.engine.scoring.interception import AttentionCall
from metashot.engine.scoring.last_layer import KeysKnownError
from metashot.engine.scoring.layout import BatchLayout, LayoutBuilder
from metashot.engine.scoring.path import PathCache
from metashot.engine.scoring.trie import Ints, TokenTrie


class TrieBatch:
    """Rows `start .. stop - 1` of a trie; handles the attention of every layer in the order of the calls.

    Args:
        trie: the trie.
        start: first row.
        stop: one past the last row.
        path: keys and values of the ancestors of row `start`; gets those of row `stop`.
        anchor: None, or a position for one more row that nobody reads. It makes the batch as long as its
            sequences are, for models whose rotary factors depend on the longest position given.
        kept: None, or rows of one path from a root, and where their keys and values are kept.
        expected: None, or keys and values that row `start` had when they were kept.
    """

    def __init__(
        self,
        trie: TokenTrie,
        start: int,
        stop: int,
        path: PathCache,
        anchor: int | None = None,
        kept: tuple[Ints, PathCache] | None = None,
        expected: PathCache | None = None,
    ) -> None:
        self.calls = 0
        self._path = path
        self._tokens, self._positions = trie.tokens[start:stop], trie.depths[start:stop]
        self._builder = LayoutBuilder.of(trie, start, stop, lone_row=anchor is not None)
        if anchor is not None:
            self._tokens, self._positions = np.append(self._tokens, 0), np.append(self._positions, anchor)
        self._kept, self._position = _next_path(trie, start, stop)
        self._left = [(self._kept, self._position, path)]
        if kept is not None:
            rows = kept[0][(kept[0] >= start) & (kept[0] < stop)]
            self._left.append((rows - start, int(trie.depths[rows[0]]) if len(rows) else 0, kept[1]))
        self._expected = expected
        self._differences: list[Tensor] = []
        self._layouts: dict[tuple[int | None, torch.device, torch.dtype, bool], BatchLayout] = {}
        self._keys_only = False
        self._last: tuple[Tensor, Tensor, tuple[Tensor, Tensor]] | None = None
        self._read: Ints | None = None

    @property
    def rows(self) -> int:
        """Rows that the model runs on."""
        return len(self._tokens)

    def inputs(self, device: torch.device) -> dict[str, Tensor]:
        """What the model is called on: `input_ids` and `position_ids`, both [1, rows]."""
        rows = {"input_ids": self._tokens, "position_ids": self._positions}
        return {name: torch.from_numpy(values)[None].to(device) for name, values in rows.items()}

    def attend(self, call: AttentionCall) -> Tensor:
        """Every row over its ancestors, [rows, h, v]; in the last layer of those that are read."""
        if self._last is not None:
            keys, values, path = self._last
            layout = self._layout(call.window, keys, self._read)
            return cascade_attention(layout, call.queries, keys, values, path, call.kernel)
        layer, self.calls = self.calls, self.calls + 1
        path = self._path.layer(layer, call.keys, call.values)
        for rows, position, into in self._left:
            if len(rows):
                kept = torch.from_numpy(rows).to(call.keys.device)
                into.extend(layer, position, call.keys[kept], call.values[kept])
        if self._expected is not None:
            self._compare(self._expected.layer(layer, call.keys, call.values), (call.keys, call.values))
        if self._keys_only:
            self._last = call.keys, call.values, path
            raise KeysKnownError
        layout = self._layout(call.window, call.keys, None)
        return cascade_attention(layout, call.queries, call.keys, call.values, path, call.kernel)

    def expect_keys(self) -> None:
        """See `TwoPassAttention`."""
        self._keys_only = True

    def expect_queries(self, rows: Tensor) -> None:
        """See `TwoPassAttention`."""
        self._read = rows.numpy()

    def _compare(self, expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> None:
        """Note by how much the first row is not as expected, relative to its largest number."""
        for known, new in zip(expected, found, strict=True):
            row = known[int(self._positions[0]) :][:1]
            same = row.shape == new[:1].shape
            difference = (row - new[:1]).abs().max() / row.abs().max() if same else new.new_tensor(torch.inf)
            self._differences.append(difference)

    @property
    def difference(self) -> float:
        """The largest difference to what was expected, relative to a layer's largest number."""
        return float(torch.stack(self._differences).nan_to_num(0.0).max()) if self._differences else 0.0

    def commit(self) -> None:
        """The batch is through: what it left becomes the path."""
        self._path.commit(self._position + len(self._kept))

    def _layout(self, window: int | None, keys: Tensor, read: Ints | None) -> BatchLayout:
        """The layout for all rows or those that are read, in the device and dtype of the keys."""
        key = window, keys.device, keys.dtype, read is None
        if key not in self._layouts:
            rows = np.arange(len(self._tokens)) if read is None else read
            self._layouts[key] = self._builder.on(keys.device, keys.dtype).build(rows, window)
        return self._layouts[key]


def _next_path(trie: TokenTrie, start: int, stop: int) -> tuple[Ints, int]:
    """The batch's rows on the path to row `stop`, and the position of the first of them."""
    if stop == trie.rows:
        return np.zeros(0, dtype=np.int64), 0
    ancestors: list[int] = []
    row = int(trie.parents[stop])
    while row >= start:
        ancestors.append(row - start)
        row = int(trie.parents[row])
    return np.array(ancestors[::-1], dtype=np.int64), int(trie.depths[stop]) - len(ancestors)
