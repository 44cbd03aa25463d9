"""Rotary positions whose factors depend on the length of the sequence: LongRoPE and dynamic NTK scaling.

Their modules look at the longest position of a *batch*, and dynamic scaling also at what came before. So only
requests of one regime may share a forward pass, or a score would depend on its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from metashot.engine.scoring.request import Request

_ORIGINAL_POSITIONS = "original_max_position_embeddings"

Regime = int | None
"""None where the factors are those of short sequences; else a position that, being the longest, gives the factors."""


@dataclass(frozen=True, slots=True)
class RopeRegimes:
    """The regimes of one model.

    Attributes:
        long_from: lengths above one of these take the long factors of LongRoPE, the same for all.
        dynamic_from: a length above one of these has factors of its own.
        dynamic: the modules that remember the longest sequence seen.
    """

    long_from: frozenset[int]
    dynamic_from: frozenset[int]
    dynamic: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module) -> RopeRegimes:
        """Read the rotary modules."""
        long_from: set[int] = set()
        dynamic: list[Any] = []
        for module in model.modules():
            kinds = _kinds(module)
            if any("dynamic" in kind for kind in kinds.values()):
                dynamic.append(module)
            parameters: Any = getattr(getattr(module, "config", None), "rope_parameters", None) or {}
            for layer_type in (layer_type for layer_type, kind in kinds.items() if kind == "longrope"):
                long_from.add(
                    int((parameters[layer_type] if layer_type else parameters)[_ORIGINAL_POSITIONS])
                )
        starts = frozenset(int(module.original_max_seq_len) for module in dynamic)
        return cls(frozenset(long_from), starts, tuple(dynamic))

    @property
    def borders(self) -> frozenset[int]:
        """Lengths at which a regime ends."""
        return self.long_from | self.dynamic_from

    def regime(self, length: int) -> Regime:
        """The regime of a sequence of `length` tokens."""
        if any(length > start for start in self.dynamic_from):
            return length - 1
        return max((start for start in self.long_from if length > start), default=None)

    def group(self, requests: Sequence[Request]) -> dict[Regime, list[int]]:
        """Indices of the requests by regime, in order."""
        groups: dict[Regime, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[self.regime(request.length)].append(index)
        return dict(groups)

    def forget(self) -> None:
        """Make dynamic modules forget the sequences before."""
        for module in self.dynamic:
            for layer_type in _kinds(module):
                prefix = f"{layer_type}_" if layer_type else ""
                device = getattr(module, f"{prefix}inv_freq").device
                original = getattr(module, f"{prefix}original_inv_freq").to(device)
                module.register_buffer(f"{prefix}inv_freq", original, persistent=False)
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _kinds(module: nn.Module) -> dict[str, str]:
    """The rope types of a module by layer type; one with the layer type "" where it does not tell them apart."""
    kind: Any = getattr(module, "rope_type", None)
    if isinstance(kind, str):
        return {"": kind}
    return dict(kind) if isinstance(kind, dict) else {}
