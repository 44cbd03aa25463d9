"""Every rule of `conf/method/extract` on texts as models write them."""

from __future__ import annotations

import pytest

from metashot.base.components.choices import choice_names, named
from metashot.base.errors import ConfigError
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.engine.metrics.extraction import Regex

EXAMPLES = {
    "whole": [("  a b\n", "a b"), ("", "")],
    "first_line": [("\n \n 12 \n13", "12"), (" \n", None)],
    "last_number": [
        ("3 and 4 make 7.", "7"),
        ("That is $1,234,567.50 in all", "1234567.50"),
        ("from 5 to -3", "-3"),
        ("10-3", "3"),
        ("x = .5", ".5"),
        ("about 2e6 atoms", "2e6"),
        ("room B12 has 4 beds", "4"),
        ("1,2", "2"),
        ("none", None),
    ],
    "boxed": [
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"\boxed{1} or \boxed {2}", "2"),
        (r"\boxed{1} and \boxed{2", "1"),
        ("1", None),
    ],
    "regex": [
        ("Two and two. The answer is 4.", "4"),
        ("the ANSWER is: six apples.\nNext question", "six apples"),
        ("four", None),
    ],
}


def test_every_rule_has_examples():
    assert set(EXAMPLES) == set(choice_names("method/extract"))


@pytest.mark.parametrize(
    ("rule", "text", "answer"), [(rule, *one) for rule, rows in EXAMPLES.items() for one in rows]
)
def test_a_rule_finds_the_answer(rule, text, answer):
    assert named("method/extract", rule)(text) == answer


@pytest.mark.parametrize(
    ("pattern", "which", "answer"),
    [
        (r"\d+", "first", "1"),
        (r"\d+", "last", "3"),
        (r"#### (\d+)|= (\d+)", "last", "3"),
        (r"([a-z])? ?(\d)", "first", "1"),
    ],
)
def test_a_regex_gives_the_first_group_that_took_part(pattern, which, answer):
    assert Regex(pattern, which)("1 = 2 #### 3") == answer


def test_no_regular_expression_is_one_line():
    with pytest.raises(ConfigError, match=r"method\.extract\.pattern: '\(' is no regular expression"):
        Regex("(")


def test_every_rule_is_another_identity():
    rules = [named("method/extract", name) for name in choice_names("method/extract")]
    rules += [Regex("a"), Regex("a", "last"), Regex("a", ignore_case=True)]
    assert len({digest_of(identity_of(rule)) for rule in rules}) == len(rules)
