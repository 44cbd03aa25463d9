"""From a cell's examples to requests: what is shared, what is cut, and what is refused."""

import math

import pytest
import torch

from metashot.base.errors import ConfigError, DataError
from metashot.data.task import Example, TaskData, TaskType
from metashot.engine.metrics.rules import Calibration
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Layout, LengthLimits, Objective, Overlong
from metashot.icl.scoring.cell import PromptRules, Truncation, build_cell, read_back
from metashot.icl.scoring.preview import cell_prompt, preview


def encode(text):
    return tuple(map(ord, text))


def decode(ids):
    return "".join(map(chr, ids))


def task(n_demonstrations=2, length=10, n_test=3, options=("no", "maybe")):
    demonstrations = [Example("t", f"{n}" * length, options[n % 2], options) for n in range(n_demonstrations)]
    test = [Example("t", f"query {n}", options[0], options) for n in range(n_test)]
    return TaskData("t", 100, TaskType.CLASSIFICATION, tuple(demonstrations), tuple(test))


def rules(method=None, truncation=Truncation.SHARED, limits=None, context_length=10_000, bos=()):
    method = method or Method("m")
    prompt = BoundPrompt(MetaiclFrame(method.objective, Layout.NEWLINE), bos)
    return PromptRules(method, prompt, truncation, limits or LengthLimits(), context_length)


def test_requests_are_the_texts_that_the_released_code_scores():
    cell = build_cell(task(), encode, rules())
    first = cell.requests[cell.index[0][0][1]]
    assert decode(first.context) == "0000000000\nno\n\n\n1111111111\nmaybe\n\n\nquery 0"
    assert decode(first.target) == "\nmaybe"


def test_channel_puts_the_option_into_the_context():
    cell = build_cell(task(), encode, rules(Method("m", Objective.CHANNEL)))
    request = cell.requests[cell.index[0][2][0]]
    assert decode(request.context).endswith("maybe\n1111111111\n\n\nno")
    assert decode(request.target) == "\nquery 2"


def test_null_requests_of_a_label_set_stand_once():
    method = Method("pmi", calibration=Calibration.PMI, null_inputs=("N/A",))
    cell = build_cell(task(n_test=5), encode, rules(method))
    # 5 inputs x 2 options, and 2 null requests that all five inputs share.
    assert len(cell.requests) == 12
    assert len({row for row in cell.index[1]}) == 1
    assert decode(cell.requests[cell.index[1][0][0]].context).endswith("\n\n\nN/A")


def test_shared_truncation_gives_every_request_the_same_demonstrations():
    limits = LengthLimits(per_example=64, sequence=60)
    cell = build_cell(task(n_demonstrations=4), encode, rules(limits=limits))
    starts = {decode(request.context).split("\n\n\nquery")[0] for request in cell.requests}
    assert len(starts) == 1
    assert max(request.length for request in cell.requests) == 60
    assert 0 < cell.kept_tokens < cell.demonstration_tokens


def test_per_option_truncation_cuts_each_option_by_its_own_length():
    # Released code: limit min(64 * 4, 60) = 60 for context and target together.
    limits = LengthLimits(per_example=64, sequence=60)
    cell = build_cell(
        task(n_demonstrations=4), encode, rules(truncation=Truncation.PER_OPTION, limits=limits)
    )
    short, long = (cell.requests[place] for place in cell.index[0][0])
    assert short.length == long.length == 60
    assert len(short.context) - len(long.context) == len("maybe") - len("no")


@pytest.mark.parametrize("truncation", list(Truncation))
@pytest.mark.parametrize("sequence", range(36, 110, 5))
def test_demonstrations_that_a_prompt_holds_whole_are_counted(truncation, sequence):
    """A slow reference reads the decoded context: a demonstration is held when its text stands there whole."""
    data = task(n_demonstrations=4)
    cell = build_cell(
        data, encode, rules(truncation=truncation, limits=LengthLimits(per_example=64, sequence=sequence))
    )
    for example, row in enumerate(cell.index[0]):
        for option, place in enumerate(row):
            text = "\n\n\n" + decode(cell.requests[place].context)
            whole = [
                f"{n}" * 10 + f"\n{one.output}\n\n\n" in text for n, one in enumerate(data.demonstrations)
            ]
            # All but the first begin with a separator, whose loss is no loss of a demonstration's text.
            assert cell.held[example][option] in (sum(whole), sum(whole) - 1)
            assert cell.held[example][option] == sum(whole) or cell.requests[place].length == sequence
    assert cell.shown_least == min(min(row) for row in cell.held)
    assert cell.shown_least <= cell.shown_mean <= 4


def over_long(overlong):
    """Two inputs of 40 letters before the digit that tells them apart, one short one; 30 tokens an example."""
    limits = LengthLimits(per_example=32, sequence=1000, overlong=overlong)
    long = [Example("t", "q" * 40 + str(n), "no", ("no", "maybe")) for n in range(2)]
    test = (*long, Example("t", "short", "no", ("no", "maybe")))
    data = TaskData("t", 100, TaskType.CLASSIFICATION, (), test)
    return build_cell(data, encode, rules(limits=limits))


def test_over_long_inputs_lose_their_end_or_their_start_and_are_counted():
    # 30 tokens, of which "\nmaybe" takes 6: 24 of the 41 letters stay, whatever option is scored.
    texts = {}
    for overlong in (Overlong.CUT_END, Overlong.CUT_START):
        cell = over_long(overlong)
        assert cell.lost == (17, 17, 0)
        texts[overlong] = [decode(cell.requests[row[0]].context) for row in cell.index[0]]
    assert texts[Overlong.CUT_END] == ["q" * 24, "q" * 24, "short"]
    assert texts[Overlong.CUT_START] == ["q" * 23 + "0", "q" * 23 + "1", "short"]


def test_over_long_inputs_are_refused_where_asked():
    with pytest.raises(
        DataError, match=r"a test input of 41 tokens is longer than the 24 .*prompt.overlong=cut_end"
    ):
        over_long(Overlong.REFUSE)


def test_both_truncations_agree_where_nothing_is_cut():
    cells = [build_cell(task(), encode, rules(truncation=truncation)) for truncation in Truncation]
    assert cells[0].requests == cells[1].requests


def test_k_too_large_for_the_context_is_refused():
    with pytest.raises(ConfigError, match=r"k=4 is too large for the context.*not one whole demonstration"):
        build_cell(task(n_demonstrations=4, length=30), encode, rules(context_length=40))


def test_a_test_example_longer_than_the_context_is_refused():
    with pytest.raises(ConfigError, match=r"test example of \d+ tokens, the sequence limit is 5"):
        build_cell(task(n_demonstrations=0), encode, rules(context_length=5))


def test_an_empty_test_input_in_channel_scoring_scores_zero_for_every_option():
    empty = TaskData("t", 100, TaskType.CLASSIFICATION, (), (Example("t", "", "no", ("no", "maybe")),))
    cell = build_cell(empty, encode, rules(Method("m", Objective.CHANNEL)))
    answers = read_back(cell, [torch.zeros(0) for _ in cell.requests])
    assert answers[0].sum_nll == ((0.0, 0.0),)
    assert [count.tokens for count in answers[0].counts[0]] == [0, 0]


def test_read_back_sums_and_counts():
    cell = build_cell(task(n_test=1), encode, rules())
    answers = read_back(cell, [torch.full((request.scored,), math.log(0.5)) for request in cell.requests])
    # "\nno" is 3 tokens, "\nmaybe" 6; each costs log 2 nats. Characters and bytes leave the separator out.
    assert answers[0].sum_nll[0] == pytest.approx((3 * math.log(2), 6 * math.log(2)))
    assert [(c.tokens, c.chars, c.bytes) for c in answers[0].counts[0]] == [(3, 2, 2), (6, 5, 5)]


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("sequence", [1024, 60])
def test_the_preview_is_the_prompt(objective, sequence):
    data = task(n_demonstrations=4)
    how = rules(Method("m", objective), limits=LengthLimits(per_example=64, sequence=sequence))
    cell = build_cell(data, encode, how)
    segments = preview(data, cell, encode, decode, how, example=1, option=1)
    request = cell.requests[cell.index[0][1][1]]
    assert "".join(segment.text for segment in segments) == decode(request.context + request.target)
    assert segments[-1].text == decode(request.target)
    assert any("(cut)" in segment.label for segment in segments) == (sequence == 60)


@pytest.mark.parametrize("objective", list(Objective))
def test_the_kept_text_is_what_stands_before_the_query(objective):
    """Where nothing is cut, the demonstrations in `prompts.jsonl` are how every request begins."""
    data = task(n_demonstrations=4)
    how = rules(Method("m", objective))
    kept = cell_prompt(data, how)
    cell = build_cell(data, encode, how)
    assert kept.demonstrations
    assert all(decode(request.context).startswith(kept.demonstrations) for request in cell.requests)
    assert kept.inputs == ("query 0", "query 1", "query 2")
