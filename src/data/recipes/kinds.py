"""The kinds of recipe whose examples need no lettered choices: each a pure function from row to pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from metashot.data.recipes.keys import ReleasedRule
from metashot.data.recipes.rows import (
    AnsweredPair,
    AnyPair,
    BadRow,
    Pair,
    Row,
    compile_text,
    left_out,
    listed,
    lookup,
    stopped,
    strings,
    template_fields,
    text_of,
)
from metashot.data.recipes.spec import (
    Cloze,
    CoinPair,
    FirstAnswer,
    Labelled,
    Majority,
    SupportingParagraphs,
    TextAnswer,
    Threshold,
)
from metashot.data.recipes.twins import known_value, number_of

_ADD_LABEL = "the recipe knows {known}: add the value to labels, or leave such rows out with a drop rule"
PairOf = Callable[[Row], AnyPair]
"""Turns one row into a raw pair; raises Dropped or BadRow."""


class Generator(Protocol):
    """What a kind draws from: numpy's legacy generator, seeded at the start of a split."""

    def random_sample(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def shuffle(self, x: Any, /) -> None:
        """Shuffle a list in place."""
        ...

    def randint(self, low: int, high: int) -> int:
        """Uniform integer in low..high-1."""
        ...


def labelled(spec: Labelled, _: Generator) -> PairOf:
    """Input template; the label's word as output."""
    text, label, labels = compile_text(spec.input, spec.clean), spec.label, spec.labels
    known = known_value(labels, label, _ADD_LABEL)
    return lambda row: Pair(text(row), labels[known(lookup(row, label))])


def text_answer(spec: TextAnswer, _: Generator) -> PairOf:
    """Input template; one field's text as output."""
    text, answer = compile_text(spec.input, spec.clean), compile_text("{" + spec.answer + "}", [])
    return lambda row: Pair(text(row), answer(row))


def first_answer(spec: FirstAnswer, _: Generator) -> PairOf:
    """Input template; one answer of a list as output, the others as further references.

    Under the released last step lists go out joined by tabs, as the original writes them, and that step keeps what is
    before the first tab.
    """
    text = compile_text(spec.input, spec.clean)
    if spec.follows(ReleasedRule.LAST_STEP):
        choose = {
            "joined": _joined,
            "first": _first,
            "sorted": _sorted_names,
            "most_frequent": _most_frequent,
        }
        take = choose[spec.take]
        return lambda row: Pair(text(row), take(lookup(row, spec.answers), spec.answers))
    order = {"joined": strings, "first": strings, "sorted": _by_name, "most_frequent": _by_count}[spec.take]

    def pair(row: Row) -> AnsweredPair:
        answers = order(lookup(row, spec.answers), spec.answers)
        if not answers:
            raise stopped(f'"{spec.answers}" is empty')
        further = dict.fromkeys(one for one in answers[1:] if one.strip() and one != answers[0])
        return AnsweredPair(text(row), answers[0], tuple(further))

    return pair


def threshold(spec: Threshold, _: Generator) -> PairOf:
    """Input template; a label where the value is strictly below or above a limit.

    The original's column is 32 bits wide: 0.6 reads back as 0.6000000238, which is above 0.6.
    """
    text = compile_text(spec.input, spec.clean)
    read: Callable[[float], float] = {
        "exact": float,
        "float32": lambda number: float(np.float32(number)),
        "float64": lambda number: round(number, 6),
    }[spec.precision]

    def pair(row: Row) -> Pair:
        value = read(_number(lookup(row, spec.value), spec.value))
        for limit, word in spec.below.items():
            if value < limit:
                return Pair(text(row), word)
        for limit, word in spec.above.items():
            if value > limit:
                return Pair(text(row), word)
        raise left_out(f"{spec.value} lies between the limits")

    return pair


def majority(spec: Majority, _: Generator) -> PairOf:
    """Input template; the most frequent annotator label, if it is more frequent than the second."""
    text = compile_text(spec.input, spec.clean)
    known = known_value(spec.labels, spec.votes, _ADD_LABEL)

    def pair(row: Row) -> Pair:
        ranked = Counter(map(known, listed(lookup(row, spec.votes), spec.votes))).most_common(2)
        if not ranked:
            raise stopped("no annotator label")
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            raise left_out("no majority among the annotators")
        return Pair(text(row), spec.labels[ranked[0][0]])

    return pair


def coin_pair(spec: CoinPair, generator: Generator) -> PairOf:
    """Two sentences in random order, one draw per row: above 0.5 puts the wanted one first."""
    wanted = compile_text("{" + spec.wanted + "}", spec.clean)
    other = compile_text("{" + spec.other + "}", spec.clean)
    fill = _filler(spec.input)

    def pair(row: Row) -> Pair:
        wanted_first = generator.random_sample() > 0.5
        good, bad = wanted(row), other(row)
        first, second = (good, bad) if wanted_first else (bad, good)
        return Pair(fill({"first": first, "second": second}), spec.answers[0 if wanted_first else 1])

    return pair


def supporting_paragraphs(spec: SupportingParagraphs, _: Generator) -> PairOf:
    """Question and the whole paragraphs whose titles support the answer, in context order."""
    text, answer = compile_text(spec.input, spec.clean), compile_text("{" + spec.answer + "}", [])

    def pair(row: Row) -> Pair:
        wanted, titles, sentences = (
            listed(lookup(row, path), path) for path in (spec.supporting, spec.titles, spec.sentences)
        )
        if len(titles) != len(sentences):
            raise BadRow(
                f"has {len(titles)} titles for {len(sentences)} lists of sentences", "correct the row"
            )
        paragraphs = [
            "".join(strings(inner, spec.sentences))
            for title, inner in zip(titles, sentences, strict=True)
            if title in wanted
        ]
        together = " ".join(paragraphs)
        if spec.follows(ReleasedRule.LAST_STEP):
            together = together.strip()
        return Pair(text({**row, "paragraphs": together}), answer(row))

    return pair


def cloze(spec: Cloze, _: Generator) -> PairOf:
    """Relation template with the subject filled in and the object masked, in this order."""
    template, subject, answer = (
        compile_text("{" + path + "}", []) for path in (spec.template, spec.subject, spec.answer)
    )

    def pair(row: Row) -> Pair:
        filled = template(row).replace("[X]", subject(row)).replace("[Y]", "[MASK]")
        return Pair(filled, answer(row))

    return pair


def _number(value: Any, field: str) -> float:
    number = number_of(value)
    if number is None:
        raise BadRow(f'field "{field}" holds {value!r}, not a number', "check the column")
    return float(number)


def _filler(template: str) -> Callable[[Row], str]:
    unknown = [name for name in template_fields(template) if name not in ("first", "second")]
    if unknown:
        raise BadRow(f"the template names {{{unknown[0]}}}", "use {first} and {second}")
    return compile_text(template, [])


def _joined(value: Any, path: str) -> str:
    return "\t".join(strings(value, path))


def _first(value: Any, path: str) -> str:
    answers = strings(value, path)
    if not answers:
        raise stopped(f'"{path}" is empty')
    return answers[0]


def _sorted_names(value: Any, path: str) -> str:
    if not value or not value[0]:
        raise stopped(f'the first group of "{path}" is empty')
    return "\t".join(sorted(set(_flatten(value, path))))


def _by_name(value: Any, path: str) -> list[str]:
    return sorted(set(_flatten(listed(value, path), path)))


def _by_count(value: Any, path: str) -> list[str]:
    counts = _counts(value, path)
    return sorted(map(str, counts), key=lambda answer: counts[answer], reverse=True)


def _flatten(value: Any, path: str) -> list[str]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [text for item in value for text in _flatten(item, path)]
    return [text_of(value, path)]


def _most_frequent(value: Any, path: str) -> str:
    counts = _counts(value, path)
    return max(counts, key=lambda answer: counts[answer], default="")


def _counts(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRow(f'field "{path}" is no {{text: count}} map', "take: joined reads lists")
    return value
