"""The kinds of recipe whose examples need no lettered choices: each a pure function from row to pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from metashot.data.recipes.keys import ReleasedRule
from metashot.data.recipes.rows import (
    BadRow,
    ChoicePair,
    Pair,
    Row,
    compile_text,
    left_out,
    lookup,
    missing,
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

PairOf = Callable[[Row], Pair | ChoicePair]
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

    def pair(row: Row) -> Pair:
        try:
            value = row[label]
        except KeyError:
            raise missing(row, label) from None
        return Pair(text(row), _word(labels, value, label))

    return pair


def text_answer(spec: TextAnswer, _: Generator) -> PairOf:
    """Input template; one field's text as output."""
    text, answer = compile_text(spec.input, spec.clean), compile_text("{" + spec.answer + "}", [])
    return lambda row: Pair(text(row), answer(row))


def first_answer(spec: FirstAnswer, _: Generator) -> PairOf:
    """Input template; one answer of a list as output.

    Lists go out joined by tabs, as the original writes them, where the released last step keeps what is before
    the first; else the first one itself.
    """
    text = compile_text(spec.input, spec.clean)
    choose = {
        "joined": _joined if spec.follows(ReleasedRule.LAST_STEP) else _first,
        "first": _first,
        "sorted": _sorted_names if spec.follows(ReleasedRule.LAST_STEP) else _first_by_name,
        "most_frequent": _most_frequent,
    }[spec.take]
    return lambda row: Pair(text(row), choose(lookup(row, spec.answers), spec.answers))


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

    def pair(row: Row) -> Pair:
        ranked = Counter(lookup(row, spec.votes)).most_common(2)
        if not ranked:
            raise stopped("no annotator label")
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            raise left_out("no majority among the annotators")
        return Pair(text(row), _word(spec.labels, ranked[0][0], spec.votes))

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
        wanted = set(lookup(row, spec.supporting))
        paragraphs = [
            "".join(sentences) + " "
            for title, sentences in zip(lookup(row, spec.titles), lookup(row, spec.sentences), strict=True)
            if title in wanted
        ]
        return Pair(text({**row, "paragraphs": "".join(paragraphs).strip()}), answer(row))

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


def _word(labels: Mapping[Any, str], value: Any, field: str) -> str:
    try:
        return labels[value]
    except (KeyError, TypeError):
        # A number in quotes, in the recipe or in the table, is the same label.
        twins = [word for key, word in labels.items() if str(key) == str(value) and not isinstance(key, bool)]
        if len(twins) == 1 and not isinstance(value, bool):
            return twins[0]
        known = ", ".join(repr(key) for key in labels)
        raise BadRow(
            f'field "{field}" holds the unknown label {value!r}',
            f"the recipe knows {known}: add the value to labels, or leave such rows out with a drop rule",
        ) from None


def _number(value: Any, field: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise BadRow(f'field "{field}" holds {value!r}, not a number', "check the column") from None


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


def _first_by_name(value: Any, path: str) -> str:
    if not value or not value[0]:
        raise stopped(f'the first group of "{path}" is empty')
    return min(_flatten(value, path))


def _flatten(value: Any, path: str) -> list[str]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [text for item in value for text in _flatten(item, path)]
    return [text_of(value, path)]


def _most_frequent(value: Any, path: str) -> str:
    if not isinstance(value, Mapping):
        raise BadRow(f'field "{path}" is no {{text: count}} map', "take: joined reads lists")
    return max(value, key=lambda answer: value[answer], default="")
