"""What well-known arguments of library components mean, where the library's own annotations say no more than a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from metashot.base.value_kinds import Count, Dropout, PositiveShare, Weight

_Small = PositiveShare | None
_KINDS: dict[str, Any] = {
    "eps": PositiveShare | tuple[_Small, PositiveShare],  # a pair is torch's Adafactor
    "betas": Annotated[tuple[Dropout, ...], Field(min_length=2, max_length=3)],
    "momentum": Dropout,
    "dampening": Dropout,
    "rho": Annotated[float, Field(ge=0, le=1)],
    "lambd": Weight,
    "max_grad_norm": Weight,
    "percentile_clipping": Count,
    "clip_threshold": Weight,
}
_LIBRARIES = ("torch.optim.", "bitsandbytes.optim.", "transformers.optimization.")


def argument_kind(target: Callable[..., Any], name: str) -> Any:
    """The kind of an optimizer's argument, or None to go by its annotation."""
    module = f"{getattr(target, '__module__', None) or ''}."
    return _KINDS.get(name) if module.startswith(_LIBRARIES) else None
