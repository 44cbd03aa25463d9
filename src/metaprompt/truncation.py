"""Rules that make an over-long context fit: pure functions over lists of ids.

A context is a list of parts; shortenable parts hold the user's text, the others are the template's own words.
`longest_slot` is our default: it never touches the template, so the question's ending always survives.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from metashot.base.errors import DataError

Ids = list[int]


class CutRule(StrEnum):
    """The rule's name in YAML."""

    LONGEST_SLOT = "longest_slot"
    """Take tokens from the end of whichever shortenable part is longest."""
    PROPORTIONAL = "proportional"
    """Two sentences keep their share of the length (pair formats)."""
    RIGHT = "right"
    """Cut the whole context from the right, template included (released nss)."""
    KEEP_ENDING = "keep_ending"
    """Cut what stands before the ending from the right (released scss)."""
    LONGER_SIDE = "longer_side"
    """Take tokens from the last shortenable part of the longer side (released downstream tasks)."""


def fit_lengths(lengths: Sequence[int], budget: int) -> list[int]:
    """Lengths cut to a common ceiling so that they sum to at most `budget`: only the longest parts lose tokens.

    Where the cut is uneven, cut parts differ by at most one token.
    """
    if sum(lengths) <= budget:
        return list(lengths)
    kept = [0] * len(lengths)
    remaining = budget
    for rank, index in enumerate(sorted(range(len(lengths)), key=lambda index: lengths[index])):
        kept[index] = min(lengths[index], remaining // (len(lengths) - rank))
        remaining -= kept[index]
    return kept


def longest_slot(parts: Sequence[Ids], shortenable: Sequence[bool], limit: int) -> list[Ids]:
    """Shorten the longest shortenable parts until all fit into `limit` tokens.

    Raises:
        DataError: the template alone is longer than `limit`.
    """
    fixed = sum(len(part) for part, free in zip(parts, shortenable, strict=True) if not free)
    if fixed > limit:
        raise DataError(
            "max_tokens", f"the template alone takes {fixed} of {limit} tokens", "raise the limit"
        )
    free = [index for index, flag in enumerate(shortenable) if flag]
    kept = dict(zip(free, fit_lengths([len(parts[i]) for i in free], limit - fixed), strict=True))
    return [part[: kept[index]] if index in kept else list(part) for index, part in enumerate(parts)]


def proportional(parts: Sequence[Ids], shortenable: Sequence[bool], limit: int, counted: int) -> list[Ids]:
    """Two sentences with a one-token mask between them, cut by their share of the length (facts 3.1, 3.3).

    p1 = int(len1 / total * (limit - 1)) - 1 and p2 = int((1 - len1 / total) * (limit - 1)) - 1 tokens stay.

    Args:
        parts: first sentence, template parts and second sentence.
        shortenable: True for exactly the two sentences.
        limit: most tokens of the context.
        counted: template tokens that count into the total (nsp counts its mask, scsp does not).
    """
    first, second = (index for index, flag in enumerate(shortenable) if flag)
    fixed = sum(len(part) for part, flag in zip(parts, shortenable, strict=True) if not flag)
    if len(parts[first]) + len(parts[second]) + fixed <= limit:
        return [list(part) for part in parts]
    total = len(parts[first]) + len(parts[second]) + counted
    share = len(parts[first]) / total
    kept = {first: int(share * (limit - fixed)) - 1, second: int((1 - share) * (limit - fixed)) - 1}
    return [part[: max(0, kept[index])] if index in kept else list(part) for index, part in enumerate(parts)]


def keep_ending(parts: Sequence[Ids], ending: int, limit: int) -> list[Ids]:
    """Cut what stands before the last `ending` parts from the right, so that all fit into `limit` tokens."""
    body = [token for part in parts[: len(parts) - ending] for token in part]
    tail = [token for part in parts[len(parts) - ending :] for token in part]
    return [body[: max(0, limit - len(tail))], tail]


def cut_right(parts: Sequence[Ids], limit: int) -> list[Ids]:
    """The first `limit` tokens of everything."""
    return [[token for part in parts for token in part][:limit]]


def longer_side(parts: Sequence[Ids], shortenable: Sequence[bool], side: int, limit: int) -> list[Ids]:
    """Remove tokens one by one from the last shortenable part of the longer side (facts 6); a tie takes side two.

    Args:
        parts: all parts in order.
        shortenable: which may be cut.
        side: index of the first part of side two; `len(parts)` when there is one side only.
        limit: most tokens of the context.
    """
    kept = [list(part) for part in parts]
    for _ in range(max(0, sum(map(len, kept)) - limit)):
        weights = [
            sum(len(kept[i]) for i in side_range if shortenable[i])
            for side_range in (range(side), range(side, len(kept)))
        ]
        chosen = range(side) if weights[0] > weights[1] else range(side, len(kept))
        filled = [index for index in chosen if shortenable[index] and kept[index]]
        if not filled:
            raise DataError("max_tokens", f"the template alone passes {limit} tokens", "raise the limit")
        kept[filled[-1]].pop()
    return kept
