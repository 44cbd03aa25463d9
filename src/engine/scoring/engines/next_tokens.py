"""What to ask an engine that tells how likely given tokens are next, and its answers put together.

Such an engine reads a prefix from its cache, so one question for each scored token costs little where contexts are
long and shared; one whole prompt for each request costs less where they are short.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from metashot.base.errors import ModelError
from metashot.engine.scoring.request import Request

if TYPE_CHECKING:
    from torch import Tensor

Prefix = tuple[int, ...]
"""Token ids before the wanted one."""


def questions(requests: Iterable[Request]) -> dict[Prefix, list[int]]:
    """The tokens wanted after each prefix, a prefix before its continuations, so that these find it in a cache.

    Example: a context (1, 2) with the targets (3, 4) and (5,) gives {(1, 2): [3, 5], (1, 2, 3): [4]}.
    """
    wanted: dict[Prefix, dict[int, None]] = {}
    for request in requests:
        ids = request.context + request.target
        for place in range(request.length - request.scored, request.length):
            wanted.setdefault(ids[:place], {})[ids[place]] = None
    return {prefix: list(tokens) for prefix, tokens in sorted(wanted.items())}


def put_together(request: Request, table: Mapping[Prefix, Mapping[int, float]]) -> Tensor:
    """The log-probabilities [request.scored], in nats, of a request whose questions are answered in `table`."""
    ids = request.context + request.target
    places = range(request.length - request.scored, request.length)
    return checked([table[ids[:place]][ids[place]] for place in places], request)


def by_cost(requests: Sequence[Request], block: int) -> tuple[list[int], list[int]]:
    """Places of the requests that cost fewer tokens by questions, and of those that cost fewer as whole prompts.

    Args:
        requests: all of one call; those with one context are decided together.
        block: tokens in which the engine caches; a prefix is read from the cache up to a multiple of it.
    """
    groups: dict[Prefix, list[int]] = defaultdict(list)
    for place, request in enumerate(requests):
        groups[request.context].append(place)
    stepped: list[int] = []
    whole: list[int] = []
    for context, places in groups.items():
        asked = questions(requests[place] for place in places)
        alone = sum(requests[place].length for place in places)
        stepwise = len(context) + sum(uncached(len(prefix), block) for prefix in asked if prefix != context)
        (stepped if stepwise < alone else whole).extend(places)
    return stepped, whole


def uncached(length: int, block: int) -> int:
    """Tokens of a prefix that the cache cannot hold: what follows its last whole block, at least its last token."""
    return length - (length - 1) // block * block


def checked(values: Sequence[float | None], request: Request) -> Tensor:
    """An engine's values [request.scored] as a tensor.

    Raises:
        ModelError: too few or too many values, or one that is no log-probability.
    """
    import torch

    if len(values) != request.scored:
        raise ModelError(
            "scorer",
            f"the engine gave {len(values)} values for {request.scored} tokens",
            "it adds or drops tokens: use another route or engine",
        )
    for value in values:
        # -9999 is what servers write for a probability that they did not compute.
        if value is None or not -9998 < value <= 1e-3:
            raise ModelError(
                "scorer",
                f"the engine gave {value!r} as a log-probability",
                "check the weights and the engine's dtype",
            )
    return torch.tensor([float(value) for value in values if value is not None], dtype=torch.float32)
