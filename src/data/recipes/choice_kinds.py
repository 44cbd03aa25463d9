"""The kinds of recipe whose choices stand in fields of their own.

Without `as_released: [marks]` question and choices go through as they are. With it they are written into the text
behind letters, from which the last step cuts them again, as the released code does.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite
from typing import Any

from metashot.data.recipes.keys import ReleasedRule
from metashot.data.recipes.kinds import Generator, PairOf
from metashot.data.recipes.rows import (
    AnyPair,
    BadRow,
    ChoicePair,
    Pair,
    Row,
    TextOf,
    compile_clean,
    compile_text,
    left_out,
    lookup,
    stopped,
    strings,
    text_of,
)
from metashot.data.recipes.spec import (
    CauseEffect,
    Choices,
    Gold,
    GroupedChoices,
    ShuffledChoices,
    WrittenChoices,
)
from metashot.data.recipes.twins import known_value, number_of

LETTERS = string.ascii_uppercase
NO_ANSWER = "NO ANSWER!"
"""What the original writes for a question without a right answer; the last step drops it."""
_SHOWN = 40
"""Characters of a text that an error shows."""


def choices(spec: Choices, _: Generator) -> PairOf:
    """Question and choices; with marks `question (A) one (B) two`, then ` [SEP] context` if there is one."""
    question = compile_text(spec.input, spec.clean)
    read_choices = _choice_reader(spec)
    assemble = _assembler(spec, spec.mark, spec.context)
    fewest, most = spec.count
    if most is None and spec.follows(ReleasedRule.MARKS):
        most = len(LETTERS)

    def pair(row: Row) -> AnyPair:
        texts = read_choices(row)
        if len(texts) < fewest or (most is not None and len(texts) > most):
            raise stopped(f"the number of choices is not in {fewest}..{'' if most is None else most}")
        asked = question(row)
        if spec.stops_on is not None and spec.stops_on in asked:
            raise stopped(f'the question holds "{spec.stops_on}"')
        labels = list(LETTERS) if spec.letters is None else strings(lookup(row, spec.letters), spec.letters)
        answer = _gold(spec.gold, row, texts, labels)
        return assemble(row, asked, texts, answer, labels)

    return pair


def shuffled_choices(spec: ShuffledChoices, generator: Generator) -> PairOf:
    """As `choices`, in an order drawn for each kept row."""
    question = compile_text(spec.input, spec.clean)
    assemble = _assembler(spec, spec.mark, spec.context)

    def pair(row: Row) -> AnyPair:
        texts = [text_of(lookup(row, field), field) for field in spec.choices]
        generator.shuffle(texts)
        answer = text_of(lookup(row, spec.answer), spec.answer)
        return assemble(row, question(row), texts, answer)

    return pair


def grouped_choices(spec: GroupedChoices, _: Generator) -> PairOf:
    """One example of all rows of a question; expects the rows that `grouped` makes."""
    question = compile_text(spec.input, spec.clean)
    marked = spec.follows(ReleasedRule.MARKS)
    assemble = _assembler(spec, spec.mark, spec.context)
    clean_choice = compile_clean([step for step in spec.clean if "choices" in step.places])

    is_right = known_value((0, 1), spec.right)
    context = None if marked else compile_text(spec.context, spec.clean, whole="context")

    def pair(row: Row) -> AnyPair:
        members: Sequence[Row] = row["rows"]
        asked = question(members[0])
        if context is not None:
            _check_one_question(spec, members, question, context)
        answers = [text_of(lookup(member, spec.choice), spec.choice) for member in members]
        marks = [_of_member(place, is_right, lookup(row, spec.right)) for place, row in enumerate(members)]
        right = [answer for answer, mark in zip(answers, marks, strict=True) if mark]
        if marked and len(answers) > len(LETTERS):
            raise stopped("more than 26 answers")
        if not right and not marked:
            raise left_out("question without a right answer")
        if (spec.one_right or not marked) and right:
            answers = [answer for answer in answers if answer == right[0] or answer not in right]
        output = "\t".join(right) if right else NO_ANSWER
        if not marked:
            output = clean_choice(right[0])
        return assemble(members[0], asked, list(map(clean_choice, answers)), output)

    return pair


def _of_member(place: int, choose: Callable[[Any], Any], value: Any) -> Any:
    """`choose`, with the row of the group in its error."""
    try:
        return choose(value)
    except BadRow as bad:
        raise BadRow(bad.problem, bad.remedy, place) from None


def _check_one_question(
    spec: GroupedChoices, members: Sequence[Row], question: TextOf, context: TextOf
) -> None:
    for what, text in (("question", question), ("context", context)):
        first = text(members[0])
        for place, member in enumerate(members):
            if (other := text(member)) != first:
                group = text_of(lookup(member, spec.group_by), spec.group_by)
                raise BadRow(
                    f"rows of the group {spec.group_by}={group} differ in their {what}: "
                    f"{first[:_SHOWN]!r} and {other[:_SHOWN]!r}",
                    "give each question a group of its own, or correct the text",
                    place,
                )


def grouped(rows: Iterable[tuple[int, Row]], path: str) -> Iterator[tuple[list[int], Row]]:
    """(numbers, {"rows": [...]}) of the numbered rows that agree at `path`, in the order of the groups' first rows.

    A group that is a number in one row and its text in another is one group.
    """
    groups: dict[str, tuple[list[int], list[Row]]] = {}
    for number, row in rows:
        numbers, members = groups.setdefault(text_of(lookup(row, path), path), ([], []))
        numbers.append(number)
        members.append(row)
    for numbers, members in groups.values():
        yield numbers, {"rows": members}


def written_choices(spec: WrittenChoices, _: Generator) -> PairOf:
    """The question as it is; the answer is cut out between the marks, four characters after its own.

    The fixed offset loses a letter where no blank follows the mark; `repair_written` mends that later.
    """
    question = compile_text(spec.input, spec.clean)
    place = known_value((0, 1), spec.index)

    def pair(row: Row) -> Pair:
        text = question(row)
        first, second = text.find("(A)"), text.find("(B)")
        answer = text[second + 4 :] if place(lookup(row, spec.index)) else text[first + 4 : second]
        return Pair(text, answer.removesuffix("or ").strip())

    return pair


def repair_written(spec: WrittenChoices, output: str, options: Sequence[str]) -> tuple[str, list[str]]:
    """Options without a closing ` or` or full stop, and the output made to match one of them."""
    tidy = [option.removesuffix(" or").removesuffix(".") for option in options]
    for _ in tidy:
        output = output.removesuffix(".")
    if output not in tidy and output + "or" in tidy:
        output += "or"
    if output not in tidy and output.endswith(" or") and output.removesuffix(" or") in tidy:
        output = output.removesuffix(" or")
    return spec.repairs.get(output, output) if output not in tidy else output, tidy


def cause_effect(spec: CauseEffect, _: Generator) -> PairOf:
    """`Effect: premise` with `Cause: one` and `Cause: two`, or the other way round."""
    assemble = _assembler(spec, " ({letter}) {choice}", None)
    place = known_value((0, 1), spec.label)

    def pair(row: Row) -> AnyPair:
        asked = lookup(row, spec.relation)
        if asked not in ("cause", "effect"):
            raise BadRow(f'field "{spec.relation}" holds {asked!r}', 'known: "cause", "effect"')
        given, sought = ("Effect", "Cause") if asked == "cause" else ("Cause", "Effect")
        premise = text_of(lookup(row, spec.premise), spec.premise)
        if spec.follows(ReleasedRule.LAST_STEP):
            premise = premise.strip()
        one, two = (f"{sought}: {text_of(lookup(row, field), field)}" for field in spec.choices)
        answer = (one, two)[place(lookup(row, spec.label))]
        return assemble(row, f"{given}: {premise}", [one, two], answer)

    return pair


def _assembler(
    spec: Choices | ShuffledChoices | GroupedChoices | CauseEffect, mark: str, template: str | None
) -> Callable[..., AnyPair]:
    """The function that puts row, question, choices, answer and the choices' labels together."""
    context = compile_text(template, spec.clean, whole="context") if template else None

    def with_marks(
        row: Row, asked: str, texts: Sequence[str], answer: str, labels: Sequence[str] = LETTERS
    ) -> Pair:
        behind = "" if context is None else " [SEP] " + context(row)
        return Pair(asked + _lettered(mark, labels, texts) + behind, answer)

    def as_given(
        row: Row, asked: str, texts: Sequence[str], answer: str, labels: Sequence[str] = LETTERS
    ) -> ChoicePair:
        if context is not None:
            joint = " " if spec.context_joint is None else spec.context_joint
            around = (context(row), asked) if spec.context_first else (asked, context(row))
            asked = joint.join(around)
        return ChoicePair(asked, answer, tuple(texts))

    return with_marks if spec.follows(ReleasedRule.MARKS) else as_given


def _lettered(mark: str, labels: Iterable[str], texts: Sequence[str]) -> str:
    return "".join(
        mark.replace("{letter}", label).replace("{choice}", text)
        for label, text in zip(labels, texts, strict=False)
    )


def _choice_reader(spec: Choices) -> Callable[[Row], list[str]]:
    clean = compile_clean([step for step in spec.clean if "choices" in step.places])
    source = spec.choices
    if isinstance(source, str):
        return lambda row: [clean(text) for text in strings(lookup(row, source), source)]
    return lambda row: [clean(text_of(lookup(row, field), field)) for field in source]


def _gold(gold: Gold, row: Row, texts: Sequence[str], labels: Sequence[str]) -> str:
    if gold.text is not None:
        return text_of(lookup(row, gold.text), gold.text)
    if gold.label is not None:
        position = _position(labels[: len(texts)], lookup(row, gold.label), gold.label)
    elif gold.letter is not None:
        position = _position(LETTERS[: len(texts)], lookup(row, gold.letter), gold.letter)
    else:
        position = _numbered(gold, row, len(texts))
    return texts[position]


def _position(labels: Sequence[str], value: Any, field: str) -> int:
    return list(labels).index(known_value(labels, field)(value))


def _numbered(gold: Gold, row: Row, n_choices: int) -> int:
    field, base = (gold.index, 0) if gold.index is not None else (gold.number, 1)
    assert field is not None
    value = lookup(row, field)
    number = number_of(value)
    if number is None or not isfinite(number) or number != int(number):
        if gold.outside == "error":
            raise _outside(field, value, n_choices, base)
        raise stopped(f'field "{field}" is no number')
    position = int(number) - base
    if 0 <= position < n_choices:
        return position
    if gold.outside == "leave_out":
        raise left_out(f'field "{field}" names no choice')
    if gold.outside == "stopped":
        raise stopped(f'field "{field}" names no choice')
    raise _outside(field, value, n_choices, base)


def _outside(field: str, value: Any, n_choices: int, base: int) -> BadRow:
    return BadRow(
        f'field "{field}" holds the unknown label {value!r}', f"known: {base}..{n_choices - 1 + base}"
    )
