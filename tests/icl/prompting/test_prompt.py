"""Serialization, to the character: the table of docs/methods.md, serialization (released code)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.task import Example
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.prompting.pieces import PieceWriter
from metashot.icl.prompting.prompt import (
    Layout,
    LengthLimits,
    Objective,
    choose_layout,
    cut_example,
    drop_left,
    input_text,
    output_text,
    query_room,
    sequence_limit,
)

DIRECT, CHANNEL = Objective.DIRECT, Objective.CHANNEL
NEWLINE, SPACE = Layout.NEWLINE, Layout.SPACE


def encode(text: str) -> tuple[int, ...]:
    """One id per character: lengths can be counted by eye."""
    return tuple(map(ord, text))


def writer(objective: Objective, layout: Layout) -> PieceWriter:
    return PieceWriter(BoundPrompt(MetaiclFrame(objective, layout)), encode, LengthLimits())


@pytest.mark.parametrize(
    ("objective", "layout", "first", "no_label", "source", "expected_input", "expected_output"),
    [
        (DIRECT, NEWLINE, True, False, "IN", "IN", "\nOUT"),
        (DIRECT, NEWLINE, False, False, "IN", "\n\n\nIN", "\nOUT"),
        (DIRECT, NEWLINE, True, False, "", "", "\nOUT"),
        (DIRECT, NEWLINE, False, False, "", "\n\n", "\nOUT"),
        (DIRECT, NEWLINE, True, True, "IN", "IN", ""),
        (DIRECT, NEWLINE, False, True, "IN", "\n\n\nIN", ""),
        (CHANNEL, NEWLINE, True, False, "IN", "\nIN", "OUT"),
        (CHANNEL, NEWLINE, False, False, "IN", "\nIN", "\n\n\nOUT"),
        (CHANNEL, NEWLINE, True, False, "", "", "OUT"),
        (CHANNEL, NEWLINE, False, False, "", "", "\n\n\nOUT"),
        (CHANNEL, NEWLINE, True, True, "IN", "IN", ""),
        (CHANNEL, NEWLINE, False, True, "IN", "IN", "\n\n\n"),
        (DIRECT, SPACE, True, False, "IN", "IN", " OUT"),
        (DIRECT, SPACE, False, False, "IN", " IN", " OUT"),
        (DIRECT, SPACE, False, False, "", " ", " OUT"),
        (CHANNEL, SPACE, True, False, "IN", " IN", "OUT"),
        (CHANNEL, SPACE, False, False, "IN", " IN", " OUT"),
    ],
)
def test_pieces_carry_the_released_separators(
    objective, layout, first, no_label, source, expected_input, expected_output
):
    given_ = {"objective": objective, "layout": layout, "first": first, "no_label": no_label}
    assert input_text(source, **given_) == expected_input
    assert output_text("OUT", **given_) == expected_output


def test_only_raw_gpt2_uses_spaces():
    assert choose_layout("gpt2_large", trained=False) is SPACE
    assert choose_layout("gpt2_large", trained=True) is NEWLINE
    assert choose_layout("gptj_6b", trained=False) is NEWLINE


def test_a_long_input_keeps_its_head_and_the_output_stays():
    # 256 less the 2 reserved tokens is 254 for both pieces: 254 - 4 = 250 tokens of input remain.
    kept, output = cut_example("t", encode("x" * 300), encode("abcd"), LengthLimits())
    assert kept == encode("x" * 250)
    assert output == encode("abcd")


def test_an_example_at_the_limit_is_not_cut():
    assert cut_example("t", encode("x" * 250), encode("abcd"), LengthLimits())[0] == encode("x" * 250)


def test_an_output_longer_than_an_example_is_refused():
    with pytest.raises(DataError, match=r"an output of 255 tokens .* 254 .*max_length_per_example"):
        cut_example("t", encode("x"), encode("y" * 255), LengthLimits())


@pytest.mark.parametrize(
    ("task", "n_input", "n_output", "expected"),
    [
        ("inst:piqa:x", 200, 200, (128, 126)),  # instruction piqa: half each
        ("inst:art:x", 100, 300, (100, 154)),  # the shorter input stays, the output is cut to 254 - 100
        ("inst:art:x", 300, 100, (154, 100)),
    ],
)
def test_instruction_tasks_may_lose_the_end_of_the_output(task, n_input, n_output, expected):
    cut = cut_example(task, encode("x" * n_input), encode("y" * n_output), LengthLimits())
    assert tuple(map(len, cut)) == expected


def test_a_query_is_cut_to_its_longest_option():
    assert query_room("t", 300, 10, LengthLimits()) == 244


@pytest.mark.parametrize(("k", "limit"), [(0, 256), (1, 256), (2, 512), (4, 1024), (16, 1024)])
def test_sequence_limit_of_the_released_code(k, limit):
    assert sequence_limit(k, LengthLimits()) == limit


@pytest.mark.parametrize(
    ("objective", "text"), [(DIRECT, "a b\nyes\n\n\nc\nno"), (CHANNEL, "yes\na b\n\n\nno\nc")]
)
def test_demonstrations_join_to_the_text_that_the_model_sees(objective, text):
    examples = [Example("t", "a b", "yes"), Example("t", "c", "no")]
    ids = writer(objective, NEWLINE).shown_ids(examples)
    assert "".join(map(chr, sum(ids, ()))) == text


words = st.text(alphabet="ab \n", max_size=400)


@given(
    source=words,
    answer=words.filter(lambda text: len(text) < 200),
    first=st.booleans(),
    layout=st.sampled_from(Layout),
)
def test_pieces_fit_and_channel_swaps_them(source, answer, first, layout):
    limits = LengthLimits()
    for objective in Objective:
        example = Example("t", source, answer)
        head, tail = writer(objective, layout).shown_ids([example] if first else [example, example])[-2:]
        assert len(head) + len(tail) <= limits.example_room
        assert "".join(map(chr, tail if objective is DIRECT else head)).endswith(answer)


@given(st.lists(st.integers(), max_size=30), st.integers(0, 40))
def test_drop_left_keeps_the_end(ids, room):
    kept = drop_left(tuple(ids), room)
    assert len(kept) == min(room, len(ids))
    assert tuple(ids)[len(ids) - len(kept) :] == kept
