"""How a new soft prompt starts. Needs no torch until one is made.

A start of one's own is one more object: an entry of `STARTS`, or a function that returns one, named by `_target_` of
`tuning.prompt_init` or `supmer.prompt_init`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticKnownError

from metashot.base.identity import NoEffect

if TYPE_CHECKING:
    from torch import Generator, Tensor

_RANDOM_STD = 0.01
_FREQUENT_IDS = 5000


@dataclass(frozen=True, slots=True)
class PromptStart:
    """One way to start.

    Attributes:
        name: in configs.
        title: one line on what it is.
        make: (input embeddings [V, d] on any device, number P of virtual tokens, generator on the CPU) to a prompt
            [P, d] in float32 on the CPU; a pure function of these.
    """

    name: str
    title: Annotated[str, NoEffect("what the reference shows")]
    make: Callable[[Any, int, Any], Any]


def _vocabulary(table: Tensor, length: int, generator: Generator) -> Tensor:
    import torch

    ids = torch.randint(min(_FREQUENT_IDS, table.shape[0]), (length,), generator=generator)
    return table[ids.to(table.device)].float().cpu().clone()


def _random(table: Tensor, length: int, generator: Generator) -> Tensor:
    import torch

    return torch.randn(length, table.shape[1], generator=generator) * _RANDOM_STD


STARTS = {
    start.name: start
    for start in (
        PromptStart("random", "N(0, 1e-4) entries (variance)", _random),
        PromptStart(
            "vocabulary", "embeddings of tokens drawn with replacement from the first 5000 ids", _vocabulary
        ),
    )
}
"""Every start by name."""


def _found(start: Any) -> PromptStart:
    if isinstance(start, PromptStart):
        return start
    if not isinstance(start, str) or start not in STARTS:
        raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, STARTS))})
    return STARTS[start]


GivenStart = Annotated[PromptStart, PlainValidator(_found)]
"""A start by its name; a start is itself."""
