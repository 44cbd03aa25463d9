"""Sequences to tensors: right-padded rows, or several sequences packed into a row.

The wrong options of a question are branches: they stand behind their sequence in its row, see the question's context
and themselves and nothing else, and have the positions that they would have in place of the right option. So the
context is computed once, whatever the number of options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metashot.icl.learning.training_settings import Batching
from metashot.icl.learning.writing.piece_cache import IdArray
from metashot.icl.learning.writing.sequences import Alternative, TrainingSequence


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
        weights: [targets] see `weighted_nll`; 0 for the targets of wrong options.
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
    layout = _Rows(len(rows), width)
    targets = _Targets(step_sequences)
    for number, row in enumerate(rows):
        for segment, sequence in enumerate(row):
            targets.add(sequence, number, layout.add(sequence, number, segment))
    return Batch(
        input_ids=torch.from_numpy(layout.ids),
        position_ids=None if plain else torch.from_numpy(layout.positions),
        visible=None if plain and batching is not Batching.PACKED else layout.visible(),
        tasks=tuple(targets.tasks),
        options=targets.option_table(),
        **targets.tensors(),
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


class _Rows:
    """The tokens of a batch, [rows, width], and who sees whom.

    Example:
        A sequence `a b y y'` whose target begins at place 2, with one wrong option `w` that branches off there::

            ids       a  b  y  y' w
            positions 0  1  2  3  2     w stands where y stands
            branch    0  0  0  0  1
            context   0  0  0  0  2     so w sees a, b and itself, and nothing sees w

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
        # A token sees its own branch up to itself, and on a branch the first `context` tokens of its sequence.
        own = (branch == to_branch) & (to_order <= order)
        before = (to_branch == 0) & (self.positions[:, None, :] < self.context[:, :, None])
        return torch.from_numpy((segment == to_segment) & (own | before))


class _Target(NamedTuple):
    """One target: where it is predicted, and what it counts for; the fields are those of `Batch`."""

    row: int
    column: int
    label: int
    weight: float
    task: int
    option: int
    """Number of its option in the batch, or -1."""


class _Option(NamedTuple):
    """One option of a question; the fields are those of `OptionTable`."""

    question: int
    slot: int
    tokens: int


class _Targets:
    """Collects where each target is predicted, and which option it belongs to.

    Attributes:
        targets: every target of the batch, right options and wrong ones.
        options: every option of a question with alternatives.
        questions: (share of the step's loss, place of its task) of each such question.
        tasks: task -> its place among the batch's tasks.
    """

    def __init__(self, step_sequences: float) -> None:
        self._step_sequences = step_sequences
        self.targets: list[_Target] = []
        self.options: list[_Option] = []
        self.questions: list[tuple[float, int]] = []
        self.tasks: dict[int, int] = {}

    def add(self, sequence: TrainingSequence, row: int, starts: list[int]) -> None:
        """The targets of one sequence in `row`; `starts` are the columns of its own tokens, then of each branch.

        Example:
            The sequence of `_Rows`, `starts` = [0, 4], alone in its step::

                label     y    y'   w
                column    1    2    1     of the token before it; for a branch at its start, the last of the context
                weight    1/2  1/2  0     a mean over the target, and wrong options weigh nothing here
                option    0    0    1     numbers in the batch: (question 0, slot 0, 2 tokens), (question 0, slot 1, 1)
        """
        scored = [question for question in sequence.questions if question.target_tokens]
        choices = sum(bool(question.alternatives) for question in scored)
        task = self.tasks.setdefault(sequence.task, len(self.tasks))
        own, branch = starts[0], 1  # branches of all questions are numbered through, scored or not
        for question in sequence.questions:
            if question.target_tokens:
                weight = 1.0 / question.target_tokens / len(scored) / self._step_sequences
                option = self._open_option(0, question.target_tokens) if question.alternatives else -1
                first = max(1, question.start)
                # A target is predicted by the token before it.
                columns = range(own + first - 1, own + question.end - 1)
                self._take(row, columns, sequence.ids[first : question.end], weight, task, option)
                for slot, other in enumerate(question.alternatives):
                    self._add_other(other, row, own, starts[branch + slot], question.branch, slot + 1, task)
                if question.alternatives:
                    self.questions.append((1.0 / choices / self._step_sequences, task))
            branch += len(question.alternatives)

    def _add_other(
        self, other: Alternative, row: int, own: int, start: int, context: int, slot: int, task: int
    ) -> None:
        """A wrong option that stands at column `start`, behind `context` tokens of the sequence at column `own`."""
        begin = max(other.lead, 0 if context else 1)
        columns = [start + place - 1 for place in range(begin, len(other.ids))]
        if begin == 0:  # predicted by the last token of the context
            columns[0] = own + context - 1
        option = self._open_option(slot, len(other.ids) - begin)
        self._take(row, columns, other.ids[begin:], 0.0, task, option)

    def _open_option(self, slot: int, tokens: int) -> int:
        self.options.append(_Option(len(self.questions), slot, max(1, tokens)))
        return len(self.options) - 1

    def _take(
        self, row: int, columns: Sequence[int], labels: IdArray, weight: float, task: int, option: int
    ) -> None:
        self.targets += [
            _Target(row, column, int(label), weight, task, option)
            for column, label in zip(columns, labels, strict=True)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """The fields of `Batch` that belong to targets."""
        rows, columns, labels, weights, task, _ = _columns(self.targets, len(_Target._fields))
        return {
            "rows": torch.tensor(rows, dtype=torch.long),
            "columns": torch.tensor(columns, dtype=torch.long),
            "labels": torch.tensor(labels, dtype=torch.long),
            "weights": torch.tensor(weights, dtype=torch.float32),
            "task": torch.tensor(task, dtype=torch.long),
        }

    def option_table(self) -> OptionTable | None:
        """The questions with alternatives."""
        if not self.questions:
            return None
        question, slot, tokens = _columns(self.options, len(_Option._fields))
        weights, tasks = _columns(self.questions, 2)
        return OptionTable(
            option=torch.tensor([target.option for target in self.targets]),
            question=torch.tensor(question),
            slot=torch.tensor(slot),
            tokens=torch.tensor(tokens),
            weights=torch.tensor(weights),
            task=torch.tensor(tasks),
        )


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """The columns of a table, also of one without rows."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
