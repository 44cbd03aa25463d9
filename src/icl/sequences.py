"""From episodes to training sequences: context and target ids, with the label ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np

from data.episodes import Episode
from data.errors import DataError
from data.task import Example
from engine.errors import ConfigError
from icl.piece_cache import IdArray, Piece, PieceCache
from icl.prompt import LengthLimits, Objective, cut_example


class DemonstrationLabels(StrEnum):
    """What stands as the label of a demonstration while training."""

    GOLD = "gold"
    """Its own label."""
    RANDOM = "random"
    """A uniformly drawn option (Min et al. 2022); the query keeps its own."""
    NONE = "none"
    """No label and no separator for it; the query keeps its own."""
    RANDOM_WORDS = "random_words"
    """Every label becomes a random English word, drawn anew for each sequence and shared with the query."""


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """One sequence to train on.

    Attributes:
        ids: [tokens] context and target.
        first_target: place of the first target token; all from there on are targets.
        task: number of its task.
        index: number of its episode.
    """

    ids: IdArray
    first_target: int
    task: int
    index: int

    @property
    def target_tokens(self) -> int:
        """Targets that have a predecessor to predict them from."""
        return len(self.ids) - max(1, self.first_target)


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """How an episode becomes a sequence.

    Attributes:
        objective: direct or channel.
        limits: token limits.
        context_length: positions of the model.
        labels: the label ablation.
        no_masking: every token is a target. (The released ablation also trains on padding; there is none here.)
        seed: of what the ablations draw.
    """

    objective: Objective
    limits: LengthLimits
    context_length: int
    labels: DemonstrationLabels = DemonstrationLabels.GOLD
    no_masking: bool = False
    seed: int = 0


def build_sequences(
    episodes: Sequence[Episode], cache: PieceCache, rules: SequenceRules
) -> list[TrainingSequence]:
    """Sequences of `episodes`, after tokenizing in one call what is seen for the first time.

    Raises:
        DataError: an output longer than an example may be, or a task that the label ablation cannot serve.
    """
    plans = [_plan(episode, cache, rules) for episode in episodes]
    cache.prepare(
        (piece for plan in plans for row in plan for piece in row.pieces),
        (row.label_text for plan in plans for row in plan if row.label_text is not None),
    )
    return [_assemble(episode, plan, cache, rules) for episode, plan in zip(episodes, plans, strict=True)]


@dataclass(frozen=True, slots=True)
class _Row:
    """An example in its place; `label_text` replaces its output."""

    example: int
    first: bool
    no_label: bool
    label_text: str | None

    @property
    def input_piece(self) -> Piece:
        return Piece(self.example, is_output=False, first=self.first, no_label=self.no_label)

    @property
    def output_piece(self) -> Piece:
        return Piece(self.example, is_output=True, first=self.first, no_label=self.no_label)

    @property
    def pieces(self) -> list[Piece]:
        return [self.input_piece] if self.label_text is not None else [self.input_piece, self.output_piece]


def _plan(episode: Episode, cache: PieceCache, rules: SequenceRules) -> list[_Row]:
    numbers = [cache.number(episode.task, example) for example in (*episode.demonstrations, episode.query)]
    labels = _replaced_labels([cache.example(number) for number in numbers], episode.index, rules)
    rows: list[_Row] = []
    for place, (number, label) in enumerate(zip(numbers, labels, strict=True)):
        first, is_query = place == 0, place == len(numbers) - 1
        no_label = rules.labels is DemonstrationLabels.NONE and not is_query
        text = None if label is None else cache.label_text(label, first=first)
        rows.append(_Row(number, first, no_label, text))
    return rows


def _replaced_labels(examples: list[Example], index: int, rules: SequenceRules) -> list[str | None]:
    """Per example of a sequence the label that replaces its own, or None."""
    if rules.labels in (DemonstrationLabels.GOLD, DemonstrationLabels.NONE):
        return [None] * len(examples)
    rng = np.random.default_rng([rules.seed, 3, index])
    if rules.labels is DemonstrationLabels.RANDOM:
        demonstrations = examples[:-1]
        _require_options(demonstrations, rules.labels)
        return [
            *(str(example.options[int(rng.integers(len(example.options)))]) for example in demonstrations),
            None,
        ]
    _require_options(examples, rules.labels)
    options = examples[0].options
    if any(set(example.options) != set(options) for example in examples):
        raise DataError(
            examples[0].task,
            "its examples have different options, so labels cannot be replaced by words",
            "leave the task out, or use trainer.demonstration_labels=gold",
        )
    words = english_words()
    drawn = {option: words[int(rng.integers(len(words)))] for option in options}
    return [drawn[example.output] for example in examples]


def _require_options(examples: list[Example], labels: DemonstrationLabels) -> None:
    for example in examples:
        if not example.options:
            raise DataError(
                example.task,
                f"is free-form (no options), which trainer.demonstration_labels={labels.value} cannot serve",
                "leave the task out, or use trainer.demonstration_labels=gold",
            )


@cache
def english_words() -> tuple[str, ...]:
    """Lower-case English words, sorted.

    The package's list of 2022 had 61,569 words; today's GCIDE list stands in for it.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        from english_words import get_english_words_set
    except ImportError:
        raise ConfigError(
            "trainer.demonstration_labels",
            "random_words needs the package english-words",
            "pip install 'metashot[train]'",
        ) from None
    return tuple(sorted(get_english_words_set(["gcide"], alpha=True, lower=True)))


def _assemble(
    episode: Episode, plan: list[_Row], cache: PieceCache, rules: SequenceRules
) -> TrainingSequence:
    task = cache.example(plan[-1].example).task
    pairs = [_ordered_pieces(task, row, cache, rules) for row in plan]
    target = pairs[-1][1]
    context = np.concatenate([*(piece for pair in pairs[:-1] for piece in pair), pairs[-1][0]])
    limit = min(
        rules.limits.sequence if episode.demonstrations else rules.limits.per_example, rules.context_length
    )
    if len(target) > limit:
        raise DataError(task, f"a target of {len(target)} tokens exceeds the limit of {limit}", "shorten it")
    context = context[max(0, len(context) - (limit - len(target))) :]
    first_target = 0 if rules.no_masking else len(context)
    return TrainingSequence(np.concatenate([context, target]), first_target, episode.task, episode.index)


def _ordered_pieces(task: str, row: _Row, cache: PieceCache, rules: SequenceRules) -> tuple[IdArray, IdArray]:
    given = cache.text_ids(row.label_text) if row.label_text is not None else cache.ids(row.output_piece)
    input_ids, output_ids = cut_example(task, cache.ids(row.input_piece), given, rules.limits)  # pyright: ignore
    pair = (input_ids, output_ids) if rules.objective is Objective.DIRECT else (output_ids, input_ids)
    return pair  # pyright: ignore[reportReturnType]
