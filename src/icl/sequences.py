"""From episodes to training sequences: context and target ids, with the label ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np

from metashot.data.episodes import Episode
from metashot.data.errors import DataError
from metashot.data.task import Example
from metashot.engine.errors import ConfigError
from metashot.icl.piece_cache import CodeArray, IdArray, PieceCache, piece_codes
from metashot.icl.prompt import Ids, LengthLimits, Objective, check_output_fits, cut_example
from metashot.icl.prompting.frame import Frame, MetaiclFrame, shorten


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
        frame: the texts around inputs and outputs.
        limits: token limits.
        context_length: positions of the model.
        front: ids in front of every sequence (begin-of-sequence, opening text).
        labels: the label ablation.
        no_masking: every token is a target. (The released ablation also trains on padding; there is none here.)
        seed: of what the ablations draw.
    """

    frame: Frame
    limits: LengthLimits
    context_length: int
    front: Ids = ()
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
        np.concatenate([codes for plan in plans for codes in plan.needed]),
        (text for plan in plans for text in plan.label_texts if text is not None),
    )
    return [_assemble(episode, plan, cache, rules) for episode, plan in zip(episodes, plans, strict=True)]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The pieces of an episode, demonstrations then query.

    Attributes:
        input_codes: [k + 1] pieces of the inputs.
        output_codes: [k + 1] pieces of the outputs.
        label_texts: what replaces each output; empty where nothing is replaced.
    """

    input_codes: CodeArray
    output_codes: CodeArray
    label_texts: list[str | None]

    @property
    def needed(self) -> list[CodeArray]:
        kept = [text is None for text in self.label_texts]
        return [self.input_codes, self.output_codes[kept] if kept else self.output_codes]


def _plan(episode: Episode, cache: PieceCache, rules: SequenceRules) -> _Plan:
    numbers = cache.numbers(episode.task, (*episode.demonstrations, episode.query))
    place = np.arange(len(numbers))
    no_label = (place < len(numbers) - 1) & (rules.labels is DemonstrationLabels.NONE)
    sides = [
        piece_codes(numbers, is_output=side, first=place == 0, no_label=no_label) for side in (False, True)
    ]
    texts: list[str | None] = []
    if rules.labels in (DemonstrationLabels.RANDOM, DemonstrationLabels.RANDOM_WORDS):
        labels = _replaced_labels([cache.example(int(number)) for number in numbers], episode.index, rules)
        texts = [
            None if label is None else cache.label_text(label, first=index == 0)
            for index, label in enumerate(labels)
        ]
    return _Plan(sides[0], sides[1], texts)


def _replaced_labels(examples: list[Example], index: int, rules: SequenceRules) -> list[str | None]:
    """Per example of a sequence the label that replaces its own, or None."""
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

    The released list of 61,569 words is in no published release of the package; its GCIDE list of 114,029 stands
    in. So the rule of the paper's Table 13 is kept, and the words it drew are not.

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


def _assemble(episode: Episode, plan: _Plan, cache: PieceCache, rules: SequenceRules) -> TrainingSequence:
    numbers = cache.numbers(episode.task, (*episode.demonstrations, episode.query))
    inputs, outputs = cache.ids(plan.input_codes), cache.ids(plan.output_codes)
    for place, text in enumerate(plan.label_texts):
        outputs[place] = outputs[place] if text is None else cache.text_ids(text)
    room = rules.limits.example_room
    for place, (input_ids, output_ids) in enumerate(zip(inputs, outputs, strict=True)):
        if len(input_ids) + len(output_ids) >= room:
            bare = place < len(numbers) - 1 and rules.labels is DemonstrationLabels.NONE
            example = cache.example(int(numbers[place]))
            inputs[place], outputs[place] = _cut(
                example, input_ids, output_ids, cache, rules, first=place == 0, no_label=bare
            )
    sides = (inputs, outputs) if rules.frame.objective is Objective.DIRECT else (outputs, inputs)
    pieces = [piece for pair in zip(*sides, strict=True) for piece in pair]
    ids, target = np.concatenate(pieces), pieces[-1]
    limit = min(
        rules.limits.sequence if episode.demonstrations else rules.limits.per_example, rules.context_length
    )
    room = limit - len(rules.front)
    if len(target) > room:
        task = cache.example(int(numbers[-1])).task
        raise DataError(task, f"a target of {len(target)} tokens exceeds the limit of {room}", "shorten it")
    ids = ids[max(0, len(ids) - room) :]
    if rules.front:
        ids = np.concatenate([np.asarray(rules.front, dtype=ids.dtype), ids])
    first_target = 0 if rules.no_masking else len(ids) - len(target)
    return TrainingSequence(ids, first_target, episode.task, episode.index)


def _cut(
    example: Example,
    input_ids: IdArray,
    output_ids: IdArray,
    cache: PieceCache,
    rules: SequenceRules,
    *,
    first: bool,
    no_label: bool,
) -> tuple[IdArray, IdArray]:
    """One example's pieces under the per-example limit; a frame's own text behind an input stays."""
    if isinstance(rules.frame, MetaiclFrame):
        return cut_example(example.task, input_ids, output_ids, rules.limits)  # pyright: ignore
    check_output_fits(example.task, len(output_ids), rules.limits)
    room = rules.limits.example_room - len(output_ids)
    kept = shorten(rules.frame, example.input, room, cache.encode, first=first, no_label=no_label)
    text = rules.frame.input_text(kept, first=first, no_label=no_label)
    return np.asarray(cache.encode(text), dtype=np.int32), output_ids
