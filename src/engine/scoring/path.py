"""The key-value cache of one path through the trie: the ancestors of the batch at hand, by position."""

from __future__ import annotations

from torch import Tensor


class PathCache:
    """Per layer the keys and values of the path's tokens, [positions, key heads, head size] each; sizes may differ.

    The next path may replace positions that the batch at hand attends to, and that batch may have to be
    repeated after an out-of-memory. So positions that were in use are staged and only written by `commit`.
    """

    def __init__(self) -> None:
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._staged: list[tuple[int, int, Tensor, Tensor]] = []
        self.length = 0

    @property
    def bytes(self) -> int:
        """What keys and values take."""
        return sum(one.nbytes for part in (self._keys, self._values) for one in part.values())

    def copy(self, length: int) -> PathCache:
        """The first `length` tokens, in tensors of their own."""
        made = PathCache()
        made._keys = {index: keys[:length].clone() for index, keys in self._keys.items()}
        made._values = {index: values[:length].clone() for index, values in self._values.items()}
        made.length = length
        return made

    def layer(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer (empty like those given before the first batch)."""
        return self._keys.get(index, keys[:0]), self._values.get(index, values[:0])

    def extend(self, index: int, position: int, keys: Tensor, values: Tensor) -> None:
        """Put tokens of the next path, keys and values [tokens, g, e] from `position` on, into one layer."""
        in_use = max(0, min(self.length - position, len(keys)))
        if in_use:
            self._staged.append((index, position, keys[:in_use].clone(), values[:in_use].clone()))
        if in_use < len(keys):
            start = position + in_use
            self._keys[index] = _write(self._keys.get(index), start, keys[in_use:])
            self._values[index] = _write(self._values.get(index), start, values[in_use:])

    def commit(self, length: int) -> None:
        """The batch is done and the next path has this many tokens."""
        for index, position, keys, values in self._staged:
            self._keys[index] = _write(self._keys.get(index), position, keys)
            self._values[index] = _write(self._values.get(index), position, values)
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
