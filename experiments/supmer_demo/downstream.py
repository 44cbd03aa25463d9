"""The downstream tasks: a few labelled questions about the main attribute, tested in domain and under a shift.

Every draw of examples asks in one of the two senses; only the examples tell in which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from world import (
    ANSWERS,
    CORPUS_GROUPS,
    GROUP_COUNT,
    INDEX,
    SOURCE_GROUPS,
    TARGET_GROUPS,
    WORDS,
    Attribute,
    Form,
    Ints,
    answer_ids,
    opposite,
    pairs,
    phrases,
    prefixes,
)

from metashot.metaprompt.batch import PromptExample
from metashot.metaprompt.tuning.loop import LabelledSet

Agreement = Literal["free", "agrees", "opposes"]
"""How the other attribute goes with the label: independent, as the label in every example, or against it."""
_TRAIN, _TEST = 0, 1


@dataclass(frozen=True, slots=True)
class DownstreamTask:
    """One task: the first K examples per label train, the tests follow other rules where the domain shifts.

    Attributes:
        name: of the task.
        form: answer words.
        shifted: train where the other attribute agrees with the label, and test in other domains too.
        about_other: phrases tell the other attribute with two words and the asked one with one.
    """

    name: str
    form: Form
    shifted: bool
    about_other: bool


TASKS = (
    DownstreamTask("in domain", "yes_no", shifted=False, about_other=False),
    DownstreamTask("in domain, other answer words", "good_bad", shifted=False, about_other=False),
    DownstreamTask("shift", "yes_no", shifted=True, about_other=False),
    DownstreamTask("harder shift, other answer words", "good_bad", shifted=True, about_other=True),
)


def asks_for_difference(seed: int) -> bool:
    """The sense of the questions of a draw: half of the draws ask what differs."""
    return seed % 2 == 0


def training_set(task: DownstreamTask, main: Attribute, shots: int, seed: int) -> LabelledSet:
    """K examples per label; a pure function of its arguments."""
    pool = SOURCE_GROUPS if task.shifted else (*SOURCE_GROUPS, *TARGET_GROUPS)
    generator = np.random.default_rng([seed, _TRAIN, TASKS.index(task)])
    agreement: Agreement = "agrees" if task.shifted else "free"
    return _labelled(task, main, 2 * shots, pool, agreement, generator, differ=asks_for_difference(seed))


def test_sets(task: DownstreamTask, main: Attribute, size: int, *, differ: bool) -> dict[str, LabelledSet]:
    """Fixed test sets in one sense: `test`, or `source`, `free` and `oppose` where the domain shifts.

    `free` and `oppose` ask about groups that training never shows; in `oppose` the other attribute contradicts
    the label in every example.
    """
    every = (*SOURCE_GROUPS, *TARGET_GROUPS)
    plans: dict[str, tuple[tuple[int, ...], Agreement]] = (
        {
            "source": (SOURCE_GROUPS, "agrees"),
            "free": (TARGET_GROUPS, "free"),
            "oppose": (TARGET_GROUPS, "opposes"),
        }
        if task.shifted
        else {"test": (every, "free")}
    )
    return {
        name: _labelled(
            task,
            main,
            size,
            pool,
            agreement,
            np.random.default_rng([_TEST, TASKS.index(task), place]),
            differ=differ,
        )
        for place, (name, (pool, agreement)) in enumerate(plans.items())
    }


def _labelled(
    task: DownstreamTask,
    asked: Attribute,
    count: int,
    pool: tuple[int, ...],
    agreement: Agreement,
    generator: np.random.Generator,
    *,
    differ: bool,
) -> LabelledSet:
    same: Ints = generator.permutation(np.arange(count) % 2)
    other = {"free": generator.integers(2, size=count), "agrees": same, "opposes": 1 - same}[agreement]
    if task.about_other:
        words = pairs(opposite(asked), other, same, generator, other_pool=pool)
    else:
        words = pairs(asked, same, other, generator, pool)
    truth = same ^ differ
    answers = answer_ids((task.form,) * count, truth)
    examples = tuple(
        PromptExample(tuple(map(int, row)), (int(answer),))
        for row, answer in zip(words, answers, strict=True)
    )
    return LabelledSet(
        examples, tuple((1 - truth).tolist()), tuple(INDEX[word] for word in ANSWERS[task.form])
    )


def in_context(training: LabelledSet, questions: LabelledSet) -> LabelledSet:
    """The same questions behind all training examples with their answers."""
    shown = tuple(token for e in training.examples for token in (*e.input_ids, *e.target_ids))
    examples = tuple(PromptExample((*shown, *e.input_ids), e.target_ids) for e in questions.examples)
    return LabelledSet(examples, questions.labels, questions.label_ids)


def behind_fillers(data: LabelledSet) -> LabelledSet:
    """The same questions behind four words that tell nothing, as the backbone met them where nothing was told."""
    filler = np.random.default_rng(0)
    fronts = prefixes([()] * len(data.examples), filler).tolist()
    examples = tuple(
        PromptExample((*front, *e.input_ids), e.target_ids)
        for front, e in zip(fronts, data.examples, strict=True)
    )
    return LabelledSet(examples, data.labels, data.label_ids)


def corpus_text(main: Attribute, documents: int, phrases_per_document: int, seed: int) -> str:
    """Unlabelled text: paragraphs of phrases about one group of the main attribute, first six groups only."""
    generator = np.random.default_rng([seed, len(main)])
    paragraphs: list[str] = []
    for document in range(documents):
        group = np.full(phrases_per_document, CORPUS_GROUPS[document % len(CORPUS_GROUPS)])
        others = generator.integers(GROUP_COUNT, size=phrases_per_document)
        rows = phrases(main, group, others, generator)
        paragraphs.append(" ".join(" ".join(WORDS[i] for i in row).capitalize() + "." for row in rows))
    return "\n\n".join(paragraphs) + "\n"
