"""The key-value cache of one path through the trie: the ancestors of the batch at hand, by position."""

from __future__ import annotations

from torch import Tensor


class PathCache:
    """Per layer the keys and values of the path's tokens, [positions, key heads, head size] each.

    The next path may replace positions that the batch at hand attends to, and that batch may have to be
    repeated after an out-of-memory. So positions that were in use are staged and only written by `commit`.
    """

    def __init__(self, layers: int) -> None:
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self._staged: list[tuple[int, int, Tensor, Tensor]] = []
        self.length = 0

    def layer(self, index: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer (empty like `like` before the first batch)."""
        keys, values = self._keys[index], self._values[index]
        if keys is None or values is None:
            return like[:0], like[:0]
        return keys, values

    def extend(self, index: int, position: int, keys: Tensor, values: Tensor) -> None:
        """Put tokens of the next path, keys and values [tokens, g, e] from `position` on, into one layer."""
        in_use = max(0, min(self.length - position, len(keys)))
        if in_use:
            self._staged.append((index, position, keys[:in_use].clone(), values[:in_use].clone()))
        if in_use < len(keys):
            start = position + in_use
            self._keys[index] = _write(self._keys[index], start, keys[in_use:])
            self._values[index] = _write(self._values[index], start, values[in_use:])

    def commit(self, length: int) -> None:
        """The batch is done and the next path has this many tokens."""
        for index, position, keys, values in self._staged:
            self._keys[index] = _write(self._keys[index], position, keys)
            self._values[index] = _write(self._values[index], position, values)
        self._staged.clear()
        self.length = length

    def roll_back(self) -> None:
        """The batch failed: forget what it staged."""
        self._staged.clear()


def _write(store: Tensor | None, start: int, rows: Tensor) -> Tensor:
    """Write rows at `start`, growing the store when they run past its end."""
    stop = start + len(rows)
    if store is None or len(store) < stop:
        grown = rows.new_empty(stop, *rows.shape[1:])
        if store is not None:
            grown[: min(start, len(store))] = store[:start]
        store = grown
    store[start:stop] = rows
    return store
