"""One rule says when a value of a file is what a recipe calls it; labels, drops, indices and marks all follow it."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.data.recipes.rows import BadRow
from metashot.data.recipes.twins import is_same, known_value, number_of
from metashot.data.sources.layout import ClassNumber, WrittenNumber, WrittenTruth

SAME: list[tuple[Any, Any]] = [
    (2, "2"), ("2", 2), (2.0, 2), ("2.0", 2), ("007", 7), (" 7", 7), (Decimal("1.10"), 1.1), ("1e3", 1000),
    (True, 1), (1, True), ("1", True), ("true", True), ("True", 1), ("FALSE", False), ("no", False), ("yes", True),
    (WrittenTruth(1), 1), (WrittenTruth(0), "false"), (WrittenNumber("1.10"), 1.1), (WrittenNumber("1E5"), "1E5"),
    (ClassNumber(0, "neg"), "neg"), (ClassNumber(0, "neg"), 0), (ClassNumber(0, "neg"), "0"),
    (None, ""), (math.nan, None), ("a", "a"),
]  # fmt: skip
DIFFERENT: list[tuple[Any, Any]] = [
    ("07", "7"), ("1.10", "1.1"), ("true", "1"), ("True", "true"), (2, "3"), (2, True), ("2", True), ("1_000", 1000),
    ("", 0), (None, 0), (None, False), ("²", 2), ([1], "[1]"), ("[1]", [1]), ({"a": 1}, "a"),
    (ClassNumber(0, "neg"), "pos"), (ClassNumber(0, "neg"), 1),
]  # fmt: skip


@pytest.mark.parametrize(("value", "known"), SAME, ids=map(repr, SAME))
def test_one_value_written_in_two_ways_is_the_same(value: Any, known: Any) -> None:
    assert is_same(value, known)
    assert is_same(known, value)


@pytest.mark.parametrize(("value", "known"), DIFFERENT, ids=map(repr, DIFFERENT))
def test_two_texts_and_two_values_are_not(value: Any, known: Any) -> None:
    assert not is_same(value, known)
    assert not is_same(known, value)


def test_what_is_written_alike_goes_before_a_twin_and_a_twin_of_two_is_none() -> None:
    choose = known_value(["1", 1, "yes"], "y")
    assert [choose(value) for value in ("1", 1, "yes")] == ["1", 1, "yes"]
    assert type(choose("1")) is str
    assert type(choose(1)) is int
    with pytest.raises(BadRow, match='field "y" holds the unknown label True'):
        choose(True)


@pytest.mark.parametrize("value", [2, -1, 7, "x", "", None, [0], {"a": 0}, "01 ", 0.5])
def test_other_values_than_the_known_ones_are_errors(value: Any) -> None:
    choose = known_value((0, 1), "y")
    if value == "01 ":
        assert choose(value) == 1
        return
    with pytest.raises(BadRow, match='field "y" holds the unknown label') as caught:
        choose(value)
    assert caught.value.remedy.startswith("known: 0, 1")


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_number_and_its_text_are_twins(number: float) -> None:
    assert number_of(str(number)) == number
    assert is_same(str(number), number)
