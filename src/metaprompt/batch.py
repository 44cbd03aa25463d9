"""Examples as ids, and batches of similar length that waste little padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PromptExample:
    """One rendered example.

    Attributes:
        input_ids: the context; a negative id -c-1 stands for the pseudo-token of cluster c.
        target_ids: encoder-decoder: sentinel, answer and perhaps the closing sentinel; decoder-only: the answer.
    """

    input_ids: tuple[int, ...]
    target_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Right-padded examples on one device.

    Attributes:
        input_ids: [B, L].
        mask: True at real input positions, [B, L].
        target_ids: [B, T].
        target_mask: True at supervised target positions, [B, T].
    """

    input_ids: Tensor
    mask: Tensor
    target_ids: Tensor
    target_mask: Tensor


def collate(
    examples: Sequence[PromptExample], *, pad_id: int, device: torch.device, length: int | None = None
) -> PromptBatch:
    """Pad `examples` to the longest of them, or to `length` tokens when given."""
    width = max(len(example.input_ids) for example in examples)
    width = width if length is None else max(width, length)
    depth = max(len(example.target_ids) for example in examples)
    input_ids = torch.full((len(examples), width), pad_id, dtype=torch.long)
    target_ids = torch.full((len(examples), depth), pad_id, dtype=torch.long)
    mask = torch.zeros(len(examples), width, dtype=torch.bool)
    target_mask = torch.zeros(len(examples), depth, dtype=torch.bool)
    for row, example in enumerate(examples):
        size, answer = len(example.input_ids), len(example.target_ids)
        input_ids[row, :size] = torch.tensor(example.input_ids, dtype=torch.long)
        target_ids[row, :answer] = torch.tensor(example.target_ids, dtype=torch.long)
        mask[row, :size] = True
        target_mask[row, :answer] = True
    return PromptBatch(input_ids.to(device), mask.to(device), target_ids.to(device), target_mask.to(device))


def bucket_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices grouped so that neighbours in length share a batch of at most `max_tokens` padded tokens.

    Every index appears exactly once; a single over-long item is a batch of its own.

    Args:
        lengths: tokens of each item, prompt included.
        max_tokens: rows times longest row, per batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        # Ascending order: the newest item is the longest of its batch.
        if batches and (len(batches[-1]) + 1) * lengths[index] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
