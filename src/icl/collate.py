"""Sequences to tensors: right-padded rows, or several sequences packed into a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from metashot.icl.sequences import TrainingSequence


class Batching(StrEnum):
    """How sequences of a step are put together."""

    BUCKETED = "bucketed"
    """Sequences of similar length share a batch, padded to its longest."""
    PACKED = "packed"
    """Several sequences in a row, which cannot see each other; no padding to speak of."""
    PADDED = "padded"
    """Released code: sequences in drawn order, each padded to the sequence limit."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass needs.

    Attributes:
        input_ids: [rows, tokens].
        position_ids: [rows, tokens], or None where each row is one sequence.
        segment_mask: [rows, 1, tokens, tokens], 0 where attention is allowed and very negative elsewhere (eager
            attention adds it); None for plain causal rows.
            (Right padding needs no mask: no real token looks to its right.)
        rows: [targets] row of the position that predicts each target.
        columns: [targets] column of that position.
        labels: [targets] target ids.
        weights: [targets] see `icl.objective.weighted_nll`.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    segment_mask: Tensor | None
    rows: Tensor
    columns: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            moved[item.name] = value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        return Batch(**moved)


def collate(
    sequences: Sequence[TrainingSequence], batching: Batching, step_sequences: float, pad_to: int = 0
) -> Batch:
    """One batch of `sequences`.

    Args:
        sequences: at least one.
        batching: packed, or rows of one sequence each.
        step_sequences: sequences that the whole optimizer step averages over.
        pad_to: fewest columns (the sequence limit under `Batching.PADDED`).
    """
    if batching is Batching.PACKED:
        return _pack(sequences, step_sequences)
    return _place([[sequence] for sequence in sequences], step_sequences, pad_to)


def _pack(sequences: Sequence[TrainingSequence], step_sequences: float) -> Batch:
    """First fit, longest first, into rows as long as the longest sequence."""
    ordered = sorted(sequences, key=lambda sequence: -len(sequence.ids))
    width = len(ordered[0].ids)
    rows: list[list[TrainingSequence]] = []
    room: list[int] = []
    for sequence in ordered:
        length = len(sequence.ids)
        row = next((number for number, free in enumerate(room) if free >= length), None)
        if row is None:
            rows.append([])
            room.append(width)
            row = len(rows) - 1
        rows[row].append(sequence)
        room[row] -= length
    batch = _place(rows, step_sequences, 0)
    segments = _segments(rows, width)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    same = segments[:, :, None] == segments[:, None, :]
    mask = torch.zeros(len(rows), 1, width, width)
    mask.masked_fill_(~(same & causal)[:, None], torch.finfo(torch.float32).min)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        start = 0
        for sequence in row:
            positions[number, start : start + len(sequence.ids)] = torch.arange(len(sequence.ids))
            start += len(sequence.ids)
    return Batch(
        batch.input_ids,
        positions,
        mask,
        batch.rows,
        batch.columns,
        batch.labels,
        batch.weights,
    )


def _segments(rows: Sequence[Sequence[TrainingSequence]], width: int) -> Tensor:
    """[rows, width] number of each token's sequence within its row; padding is a segment of its own."""
    segments = torch.full((len(rows), width), -1, dtype=torch.long)
    for number, row in enumerate(rows):
        start = 0
        for place, sequence in enumerate(row):
            segments[number, start : start + len(sequence.ids)] = place
            start += len(sequence.ids)
    return segments


def _place(rows: Sequence[Sequence[TrainingSequence]], step_sequences: float, pad_to: int) -> Batch:
    width = max(pad_to, max(sum(len(sequence.ids) for sequence in row) for row in rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    row_numbers: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for number, row in enumerate(rows):
        start = 0
        for sequence in row:
            length = len(sequence.ids)
            input_ids[number, start : start + length] = torch.from_numpy(sequence.ids)
            targets = sequence.target_tokens
            columns.extend(range(start + length - targets - 1, start + length - 1))
            row_numbers.extend([number] * targets)
            weights.extend([1.0 / targets / step_sequences] * targets)
            start += length
    at_rows, at_columns = torch.tensor(row_numbers), torch.tensor(columns)
    return Batch(
        input_ids,
        None,
        None,
        at_rows.long(),
        at_columns.long(),
        input_ids[at_rows.long(), at_columns.long() + 1],
        torch.tensor(weights, dtype=torch.float32),
    )
