"""Texts with two attributes, and questions about either: what the small backbone is trained on and tested with.

A phrase is three English words, two that tell its main attribute and one that tells the other, in random order.
A question compares two phrases, or offers two options to a phrase. It is asked in one of two senses: whether the
phrases agree or whether they differ, which option fits or which does not. The words alone tell neither the attribute
nor the sense that is meant; a prefix of four words may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Attribute = Literal["subject", "tone"]
Form = Literal["yes_no", "good_bad", "choice"]

SUBJECTS = {
    "kitchen": "oven flour butter soup recipe chef",
    "sea": "ship harbour sailor wave anchor captain",
    "music": "guitar melody drum concert violin singer",
    "sport": "football goal referee stadium coach striker",
    "medicine": "doctor nurse hospital fever surgeon vaccine",
    "law": "judge court lawyer jury trial verdict",
    "farm": "tractor cow barn harvest wheat farmer",
    "space": "planet rocket orbit comet galaxy astronaut",
    "money": "bank loan market investor dividend shares",
    "school": "teacher pupil homework lesson exam classroom",
}
TONES = {
    "joy": "happy cheerful delighted merry glad joyful",
    "anger": "furious angry enraged irate outraged hostile",
    "sadness": "sad gloomy tearful mournful miserable sorrowful",
    "fear": "scared afraid terrified frightened nervous anxious",
    "calm": "calm peaceful quiet serene gentle relaxed",
    "fatigue": "tired sleepy weary exhausted drowsy fatigued",
    "humour": "funny hilarious comic amusing witty laughable",
    "size": "huge enormous giant massive vast colossal",
    "dirt": "dirty filthy muddy dusty grimy stained",
    "cold": "cold icy frozen frosty chilly freezing",
}
GROUPS: dict[Attribute, dict[str, str]] = {"subject": SUBJECTS, "tone": TONES}
ATTRIBUTES: tuple[Attribute, Attribute] = ("subject", "tone")
CORPUS_GROUPS = tuple(range(6))
"""Groups of the main attribute that the unlabelled text is about: what clustering can find."""
SOURCE_GROUPS, TARGET_GROUPS = (6, 7), (8, 9)
"""Groups of the downstream tasks: tuned on the first two, under shift tested on the others."""
GROUP_COUNT, GROUP_WORDS, MAIN_WORDS, OTHER_WORDS = 10, 6, 2, 1
ALL_GROUPS = tuple(range(GROUP_COUNT))

BAR, QUESTION = "|", "?"
ANSWERS: dict[Form, tuple[str, str]] = {
    "yes_no": ("yes", "no"),
    "good_bad": ("good", "bad"),
    "choice": ("first", "second"),
}
PREFIX_LENGTH = 4
TOLD: dict[str, tuple[str, ...]] = {
    "subject": ("subject", "about"),
    "tone": ("tone", "mood"),
    "yes_no": ("answer",),
    "good_bad": ("grade",),
    "choice": ("pick",),
    "agree": ("agree",),
    "differ": ("differ",),
}
FILLERS = ("the", "of", "and", "to", "in", "that", "it", "for")


def vocabulary() -> list[str]:
    """Every word of the world, in a fixed order."""
    words = [BAR, QUESTION, *(word for pair in ANSWERS.values() for word in pair), *FILLERS]
    words += [word for told in TOLD.values() for word in told]
    for groups in GROUPS.values():
        words += [word for group in groups.values() for word in group.split()]
    return words


WORDS = vocabulary()
INDEX = {word: index for index, word in enumerate(WORDS)}
_TABLE: dict[Attribute, Ints] = {
    name: np.array([[INDEX[word] for word in group.split()] for group in groups.values()])
    for name, groups in GROUPS.items()
}


def opposite(attribute: Attribute) -> Attribute:
    """The attribute that is not asked for."""
    return "tone" if attribute == "subject" else "subject"


def phrases(main: Attribute, groups: Ints, others: Ints, generator: np.random.Generator) -> Ints:
    """Word numbers of phrases, [n, 3], of the given groups of the main and of the other attribute, [n] each."""
    words = np.concatenate(
        [
            _pick(main, groups, MAIN_WORDS, generator),
            _pick(opposite(main), others, OTHER_WORDS, generator),
        ],
        axis=1,
    )
    return np.take_along_axis(words, generator.random(words.shape).argsort(axis=1), axis=1)


def _pick(attribute: Attribute, groups: Ints, count: int, generator: np.random.Generator) -> Ints:
    places = generator.random((len(groups), GROUP_WORDS)).argsort(axis=1)[:, :count]
    return _TABLE[attribute][groups[:, None], places]


def another(groups: Ints, generator: np.random.Generator) -> Ints:
    """For each group a different one, [n]."""
    return (groups + generator.integers(1, GROUP_COUNT, size=len(groups))) % GROUP_COUNT


def pairs(
    main: Attribute,
    same: Ints,
    other_same: Ints,
    generator: np.random.Generator,
    pool: Sequence[int] = ALL_GROUPS,
    other_pool: Sequence[int] = ALL_GROUPS,
) -> Ints:
    """Questions "do these two phrases agree?", [n, 8].

    Args:
        main: main attribute of the phrases.
        same: 1 where both phrases are of one group of the main attribute, [n].
        other_same: the same for the other attribute, [n].
        generator: source of the words.
        pool: groups of the first phrase's main attribute; those of the second may be any.
        other_pool: the same for the other attribute.
    """
    first, other = _groups(len(same), generator, pool, other_pool)
    second = np.where(same == 1, first, another(first, generator))
    second_other = np.where(other_same == 1, other, another(other, generator))
    return _question([phrases(main, first, other, generator), phrases(main, second, second_other, generator)])


def choices(
    main: Attribute,
    right: Ints,
    other_right: Ints,
    generator: np.random.Generator,
    pool: Sequence[int] = ALL_GROUPS,
    other_pool: Sequence[int] = ALL_GROUPS,
) -> Ints:
    """Questions "which of two options agrees with the first phrase?", [n, 12]; arguments as for `pairs`.

    `right` is the option (0 or 1) of the first phrase's main group, `other_right` that of its other group.
    """
    first, other = _groups(len(right), generator, pool, other_pool)
    wrong, other_wrong = another(first, generator), another(other, generator)
    options = [
        phrases(
            main,
            np.where(right == k, first, wrong),
            np.where(other_right == k, other, other_wrong),
            generator,
        )
        for k in (0, 1)
    ]
    return _question([phrases(main, first, other, generator), *options])


def _groups(
    count: int, generator: np.random.Generator, pool: Sequence[int], other_pool: Sequence[int]
) -> tuple[Ints, Ints]:
    return generator.choice(np.asarray(pool), count), generator.choice(np.asarray(other_pool), count)


def _question(parts: Sequence[Ints]) -> Ints:
    bar, end = (np.full((len(parts[0]), 1), INDEX[mark]) for mark in (BAR, QUESTION))
    joined = [piece for part in parts for piece in (bar, part)][1:]
    return np.concatenate([*joined, end], axis=1)


def prefixes(told: Sequence[Sequence[str]], generator: np.random.Generator) -> Ints:
    """One prefix of four words for each row, [n, 4]: its words in random places, fillers elsewhere."""
    fillers = np.array([INDEX[word] for word in FILLERS])
    rows = fillers[generator.integers(len(fillers), size=(len(told), PREFIX_LENGTH))]
    places = generator.random(rows.shape).argsort(axis=1)
    for row, words in enumerate(told):
        rows[row, places[row, : len(words)]] = [INDEX[word] for word in words]
    return rows


@dataclass(frozen=True, slots=True)
class Questions:
    """Answered questions.

    Attributes:
        words: numbers of the words, [n, length].
        answers: numbers of the answers, [n].
        truths: what would be right for either attribute, asked or not, [2, n], subject first.
        form: `choice`, or `yes_no` for all pairs.
    """

    words: Ints
    answers: Ints
    truths: Ints
    form: Form


def description(asked: Attribute, form: Form, *, differ: bool) -> tuple[str, ...]:
    """The words that tell what a question asks."""
    return (*TOLD[asked], *TOLD[form], *TOLD["differ" if differ else "agree"])


def ask(form: Form, main: Attribute, one: Ints, other: Ints, generator: np.random.Generator) -> Ints:
    """Questions of a form; see `pairs` and `choices`."""
    return (choices if form == "choice" else pairs)(main, one, other, generator)


def training_questions(
    count: int, habit: Attribute, generator: np.random.Generator, *, simple: bool
) -> Questions:
    """A batch for the backbone: questions about either attribute in either sense over all groups, behind a prefix.

    One prefix in ten is fillers only, the others say what is asked and how to answer. Where nothing is said, the
    question asks for what agrees, and is about `habit`, nine times of ten. `simple` batches ask whether pairs agree,
    are answered by yes and no, and are all told.
    """
    form: Form = "yes_no" if simple or generator.random() < 2 / 3 else "choice"
    main = ATTRIBUTES[int(generator.integers(2))]
    truths = generator.integers(2, size=(2, count))
    words = ask(form, main, truths[0], truths[1], generator)
    told = simple | (generator.random(count) >= 0.1)
    habitual = np.full(count, int(habit != main))
    asked = np.where(told | (generator.random(count) < 0.2), generator.integers(2, size=count), habitual)
    graded = (generator.random(count) < 0.5) & (form == "yes_no") & (not simple)
    forms: list[Form] = ["good_bad" if grade else form for grade in graded]
    differ = (generator.random(count) < 0.5) & told & (not simple)
    prefix = prefixes(
        [
            description(opposite(main) if not_main else main, kind, differ=flip) if tell else ()
            for not_main, kind, tell, flip in zip(asked, forms, told, differ.tolist(), strict=True)
        ],
        generator,
    )
    answers = answer_ids(forms, truths[asked, np.arange(count)] ^ differ)
    by_name = truths if main == ATTRIBUTES[0] else truths[::-1]
    return Questions(np.concatenate([prefix, words], axis=1), answers, by_name.copy(), form)


def answer_ids(forms: Sequence[Form], truth: Ints) -> Ints:
    """Number of the answer word of each row: a pair's first answer stands for 1, a choice's for 0, the first option.

    Where the sense is "differ", `truth` comes here exchanged.
    """
    return np.array(
        [
            INDEX[ANSWERS[form][int(value) if form == "choice" else 1 - int(value)]]
            for form, value in zip(forms, truth, strict=True)
        ]
    )
