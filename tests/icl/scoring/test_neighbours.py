"""Cells whose test examples have demonstrations of their own equal the cells of each example alone."""

from metashot.data.task import Example, TaskData, TaskType
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import MetaiclFrame
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.pieces import shows_no_label
from metashot.icl.prompting.prompt import Layout, LengthLimits, Objective
from metashot.icl.scoring.cell import PromptRules, Truncation, build_cell

OPTIONS = ("no", "yes")
TEST = tuple(Example("t", f"is it {word}?", "no", OPTIONS) for word in ("cold", "warm", "cold"))
SHOWN = tuple(
    (Example("t", f"close to {i}", "yes", OPTIONS), Example("t", "same", "no", OPTIONS)) for i in (1, 2, 1)
)


def rules():
    prompt = BoundPrompt(MetaiclFrame(Objective.DIRECT, Layout.NEWLINE))
    return PromptRules(Method("direct"), prompt, Truncation.SHARED, LengthLimits(), 1024)


def encode(text):
    return tuple(tiny_tokenizer()(text, add_special_tokens=False).input_ids)


def test_each_test_example_is_built_as_if_alone():
    cell = build_cell(TaskData("t", 1, TaskType.CLASSIFICATION, (), TEST, SHOWN), encode, rules())
    for row, (test, shown) in enumerate(zip(TEST, SHOWN, strict=True)):
        alone = build_cell(TaskData("t", 1, TaskType.CLASSIFICATION, shown, (test,)), encode, rules())
        found = [cell.requests[place] for place in cell.index[0][row]]
        assert found == [alone.requests[place] for place in alone.index[0][0]]
        assert cell.texts[0][row] == alone.texts[0][0]
    assert len(cell.requests) == 4  # the third example repeats the first


def test_demonstrations_without_labels_show_no_separator():
    """`inputs only`: A, three newlines, B, three newlines, query; not one newline after each input."""
    bare = tuple(Example("t", text, "", OPTIONS) for text in ("A", "B"))
    assert shows_no_label(bare)
    assert not shows_no_label(())
    assert not shows_no_label((*bare, Example("t", "C", "yes", OPTIONS)))
    cell = build_cell(TaskData("t", 1, TaskType.CLASSIFICATION, bare, TEST[:1]), encode, rules())
    request = cell.requests[0]
    assert request.context == encode("A") + encode("\n\n\nB") + encode("\n\n\nis it cold?")
