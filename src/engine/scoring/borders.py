"""Lengths from which on a model computes in another way: sliding windows, chunks, chosen tokens, regimes of rotary factors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from transformers import PreTrainedModel

from metashot.engine.scoring.ropes import RopeRegimes

_BORDERS = re.compile("window|chunk|block_size|topk|top_k|compress|original_max_position")
"""Keys of configs whose numbers are lengths from which on a model may compute in another way."""


def borders_of(model: PreTrainedModel, windows: Iterable[int] = ()) -> list[int]:
    """Lengths, in order, from which on the model computes in another way, or may do so by what its config names."""
    named = dict(_lengths(model.config.get_text_config().to_dict(), named=False))
    chosen = {length for key, length in named.items() if "topk" in key}
    rates = {length for key, length in named.items() if "compress" in key}
    blocks = {rate * count for rate in rates for count in chosen}
    return sorted(set(windows) | RopeRegimes.of(model).borders | set(named.values()) | blocks)


def _lengths(value: Any, *, named: bool, key: str = "") -> Iterator[tuple[str, int]]:
    """Every number below a key that names a length, with its path in the config."""
    if isinstance(value, Mapping):
        for name, part in cast(Mapping[str, Any], value).items():
            yield from _lengths(part, named=named or bool(_BORDERS.search(str(name))), key=f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(cast(list[Any], value)):
            yield from _lengths(part, named=named, key=f"{key}.{place}")
    elif named and isinstance(value, int) and not isinstance(value, bool) and value > 1:
        yield key, value


def chooses_tokens(model: PreTrainedModel, length: int) -> bool:
    """Whether attention chooses among the tokens of a request so long, as its config says (`index_topk`).

    What is chosen depends, seldom and by little, on what stands beside a request: too seldom for a comparison of a few.
    """
    named = _lengths(model.config.get_text_config().to_dict(), named=False)
    chosen = [count for key, count in named if "index" in key and "topk" in key]
    return bool(chosen) and length > min(chosen)
