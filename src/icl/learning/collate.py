"""Sequences to tensors: right-padded rows, or several sequences packed into a row.

The wrong options of a question are branches: they stand behind their sequence in its row, see the question's context
and themselves and nothing else, and have the positions that they would have in place of the right option. So the
context is computed once, whatever the number of options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metashot.icl.learning.sequences import TrainingSequence
from metashot.icl.learning.training_settings import Batching


@dataclass(frozen=True, slots=True)
class OptionTable:
    """Which targets make up which option of which question.

    Attributes:
        option: [targets] number of the option that a target belongs to, or -1.
        question: [options] number of its question.
        slot: [options] its place among the question's options; the right one has 0.
        tokens: [options] its scored tokens.
        weights: [questions] share of the step's loss.
        task: [questions] place of its task among the batch's `tasks`.
    """

    option: Tensor
    question: Tensor
    slot: Tensor
    tokens: Tensor
    weights: Tensor
    task: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass needs.

    Attributes:
        input_ids: [rows, tokens].
        position_ids: [rows, tokens], or None where each row is one sequence.
        visible: [rows, tokens (from), tokens (to)], true where a token may look; None for plain causal rows.
            (Right padding needs no mask: no real token looks to its right.)
        rows: [targets] row of the position that predicts each target.
        columns: [targets] column of that position.
        labels: [targets] target ids.
        weights: [targets] see `icl.objective.weighted_nll`; 0 for the targets of wrong options.
        tasks: numbers of the tasks that the sequences come from.
        task: [targets] place of its task among `tasks`.
        options: the questions with alternatives, or None without any.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    visible: Tensor | None
    rows: Tensor
    columns: Tensor
    labels: Tensor
    weights: Tensor
    tasks: tuple[int, ...]
    task: Tensor
    options: OptionTable | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        return _moved(self, device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{item.name: _moved(getattr(value, item.name), device) for item in fields(value)})
    return value


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
    rows = _first_fit(sequences) if batching is Batching.PACKED else [[sequence] for sequence in sequences]
    width = max(pad_to, *(sum(sequence.tokens for sequence in row) for row in rows))
    plain = all(len(row) == 1 and row[0].tokens == len(row[0].ids) for row in rows)
    layout = _Layout(len(rows), width)
    targets = _Targets(step_sequences)
    for number, row in enumerate(rows):
        for segment, sequence in enumerate(row):
            targets.add(sequence, number, layout.add(sequence, number, segment))
    return Batch(
        torch.from_numpy(layout.ids),
        None if plain else torch.from_numpy(layout.positions),
        None if plain and batching is not Batching.PACKED else layout.visible(),
        torch.tensor(targets.rows, dtype=torch.long),
        torch.tensor(targets.columns, dtype=torch.long),
        torch.tensor(targets.labels, dtype=torch.long),
        torch.tensor(targets.weights, dtype=torch.float32),
        tuple(targets.tasks),
        torch.tensor(targets.task, dtype=torch.long),
        targets.option_table(),
    )


def _first_fit(sequences: Sequence[TrainingSequence]) -> list[list[TrainingSequence]]:
    """First fit, longest first, into rows as long as the longest sequence."""
    ordered = sorted(sequences, key=lambda sequence: -sequence.tokens)
    rows: list[list[TrainingSequence]] = []
    room: list[int] = []
    for sequence in ordered:
        row = next((number for number, free in enumerate(room) if free >= sequence.tokens), None)
        if row is None:
            rows.append([])
            room.append(ordered[0].tokens)
            row = len(rows) - 1
        rows[row].append(sequence)
        room[row] -= sequence.tokens
    return rows


class _Layout:
    """The tokens of a batch, [rows, width], and who sees whom.

    Attributes:
        ids: token ids.
        positions: position of each token within its sequence.
        segment: number of each token's sequence within its row; -1 is padding.
        branch: 0 on a sequence's own tokens, n on those of its n-th wrong option.
        context: on a branch, tokens of the sequence that it sees.
    """

    def __init__(self, rows: int, width: int) -> None:
        self.ids, self.positions, self.branch, self.context = (
            np.zeros((rows, width), dtype=np.int64) for _ in range(4)
        )
        self.segment = np.full((rows, width), -1, dtype=np.int64)
        self._used = [0] * rows

    def add(self, sequence: TrainingSequence, row: int, segment: int) -> list[int]:
        """Place a sequence and its branches; returns the column where each starts, the sequence's own first."""
        starts = [self._put(sequence.ids, row, segment, branch=0, context=0)]
        for question in sequence.questions:
            for other in question.alternatives:
                starts.append(self._put(other.ids, row, segment, branch=len(starts), context=question.branch))
        return starts

    def _put(self, ids: Any, row: int, segment: int, *, branch: int, context: int) -> int:
        start = self._used[row]
        place = (row, slice(start, start + len(ids)))
        self.ids[place] = ids
        self.positions[place] = np.arange(context, context + len(ids))
        self.segment[place], self.branch[place], self.context[place] = segment, branch, context
        self._used[row] += len(ids)
        return start

    def visible(self) -> Tensor:
        """[rows, width, width]: the own sequence up to itself, or up to its branching point."""

        def pair(values: Any) -> tuple[Any, Any]:
            return values[:, :, None], values[:, None, :]

        (segment, to_segment), (branch, to_branch) = pair(self.segment), pair(self.branch)
        order, to_order = pair(np.broadcast_to(np.arange(self.ids.shape[1]), self.ids.shape))
        own = (branch == to_branch) & (to_order <= order)
        before = (to_branch == 0) & (self.positions[:, None, :] < self.context[:, :, None])
        return torch.from_numpy((segment == to_segment) & (own | before))


class _Targets:
    """Collects where each target is predicted, and which option it belongs to."""

    def __init__(self, step_sequences: float) -> None:
        self._step_sequences = step_sequences
        self.rows: list[int] = []
        self.columns: list[int] = []
        self.labels: list[int] = []
        self.weights: list[float] = []
        self.tasks: dict[int, int] = {}
        self.task: list[int] = []
        self._option: list[int] = []
        self._question: list[int] = []
        self._slot: list[int] = []
        self._tokens: list[int] = []
        self._question_weights: list[float] = []
        self._question_tasks: list[int] = []

    def add(self, sequence: TrainingSequence, row: int, starts: list[int]) -> None:
        """The targets of one sequence whose parts start at these columns of `row`."""
        scored = [question for question in sequence.questions if question.target_tokens]
        task = self.tasks.setdefault(sequence.task, len(self.tasks))
        first_target = len(self.labels)
        choices = sum(bool(question.alternatives) for question in scored)
        branch = 1
        for question in sequence.questions:
            if question.target_tokens:
                weight = 1.0 / question.target_tokens / len(scored) / self._step_sequences
                option = self._open_option(0, question.target_tokens) if question.alternatives else -1
                first = max(1, question.start)
                columns = range(starts[0] + first - 1, starts[0] + question.end - 1)
                self._take(row, columns, sequence.ids[first : question.end], weight, option)
                for slot, other in enumerate(question.alternatives):
                    self._add_other(row, starts, branch + slot, other, question.branch, slot + 1)
                if question.alternatives:
                    self._question_weights.append(1.0 / choices / self._step_sequences)
                    self._question_tasks.append(task)
            branch += len(question.alternatives)
        self.task.extend([task] * (len(self.labels) - first_target))

    def _add_other(
        self, row: int, starts: list[int], branch: int, other: Any, context: int, slot: int
    ) -> None:
        begin = max(other.lead, 0 if context else 1)
        tokens = len(other.ids) - begin
        columns = [starts[branch] + place - 1 for place in range(begin, len(other.ids))]
        if begin == 0:  # predicted by the last token of the context
            columns[0] = starts[0] + context - 1
        self._take(row, columns, other.ids[begin:], 0.0, self._open_option(slot, tokens))

    def _open_option(self, slot: int, tokens: int) -> int:
        self._question.append(len(self._question_weights))
        self._slot.append(slot)
        self._tokens.append(max(1, tokens))
        return len(self._slot) - 1

    def _take(self, row: int, columns: Sequence[int], labels: Any, weight: float, option: int) -> None:
        self.rows.extend([row] * len(columns))
        self.columns.extend(columns)
        self.labels.extend(int(label) for label in labels)
        self.weights.extend([weight] * len(columns))
        self._option.extend([option] * len(columns))

    def option_table(self) -> OptionTable | None:
        """The questions with alternatives."""
        if not self._question_weights:
            return None
        return OptionTable(
            torch.tensor(self._option),
            torch.tensor(self._question),
            torch.tensor(self._slot),
            torch.tensor(self._tokens),
            torch.tensor(self._question_weights),
            torch.tensor(self._question_tasks),
        )
