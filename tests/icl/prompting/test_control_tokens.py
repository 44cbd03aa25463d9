"""A control token in a user's text is text; one that a template writes is the token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.data.task import Example, TaskData, TaskType
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.icl.prompting.boundary import continuing
from metashot.icl.prompting.config import MetaiclPrompt, TemplatePrompt
from metashot.icl.prompting.control_tokens import ControlTokens
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.pieces import PieceWriter, split_alike
from metashot.icl.prompting.pieces import Prompt as PiecesPrompt
from metashot.icl.prompting.prompt import LengthLimits

END = "</s>"
tokenizer = tiny_tokenizer()


def ids(text):
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def as_text(text):
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)


def row(prompt, text, options=("yes", "no")):
    bound = prompt.bind(Method("m"), "tiny", tokenizer)
    return bound, PieceWriter(bound, ids, LengthLimits()).row((), Example("t", text, options[0], options))


def test_the_tiny_tokenizer_has_a_control_token():
    assert tokenizer.eos_token == END
    assert len(ids(END)) == 1 < len(as_text(END))


@given(st.lists(st.sampled_from([END, "</", "a", " b", "s>", "\n"]), max_size=8).map("".join))
def test_escaped_texts_have_the_ids_that_transformers_gives_when_it_splits_them_off(text):
    control = ControlTokens(tokenizer)
    assert control.encoder(ids)(control.escape(text)) == as_text(text)


@pytest.mark.parametrize("boundary", ["separate", "joint"])
def test_released_prompts_hold_it_as_text(boundary):
    text = f"a {END} b"
    _, prompts = row(MetaiclPrompt(boundary=boundary), text, ("yes", END))
    joined = as_text(f"{text}\nyes") if boundary == "joint" else as_text(text) + ids("\nyes")
    assert prompts[0].ids == joined
    assert prompts[1].ids[len(prompts[0].head) :] == as_text(f"\n{END}")


@pytest.mark.parametrize("boundary", ["separate", "joint"])
def test_a_template_of_ones_own_may_write_it(boundary):
    prompt = TemplatePrompt(example=f"{END}Q: {{input}}\nA: {{output}}", boundary=boundary)
    bound, prompts = row(prompt, f"b {END}")
    assert prompts[0].ids == ids(END) + as_text(f"Q: b {END}\nA: yes")
    data = TaskData("t", 1, TaskType.CLASSIFICATION, (), (Example("t", f"b {END}", "yes", ("yes", "no")),))
    assert bound.notes_on(data) == (
        "task 't': 1 texts hold '</s>', which the tokenizer knows as control tokens; in a prompt they are read "
        "as the text that they are",
    )


def test_begin_of_sequence_that_a_template_of_ones_own_writes_is_not_doubled():
    begin = tiny_tokenizer()
    begin.bos_token = END
    prompt = TemplatePrompt(example=f"{END}Q: {{input}}\nA: {{output}}", bos=True)
    bound = prompt.bind(Method("m"), "tiny", begin)
    (prompt,) = PieceWriter(bound, ids, LengthLimits()).row((), Example("t", "b", "yes", ("yes",)))
    assert prompt.ids == ids(f"{END}Q: b\nA: yes")


def test_a_piece_behind_others_has_no_blank_of_its_own():
    """SentencePiece puts a blank in front of a text that begins: `blanked` stands for such a tokenizer."""

    def blanked(text):
        return tuple(map(ord, f" {text}"))

    assert continuing(blanked)("ab") == tuple(map(ord, "ab"))
    assert continuing(ids)(" b") == ids(" b")


def test_options_are_split_from_the_prompt_at_one_place():
    """A token over the border takes part of the prompt with it, for every option alike."""
    crossing = PiecesPrompt((), (), (1,), (7, 8), "x")
    plain = PiecesPrompt((), (), (1, 2), (9,), "y")
    first, second = split_alike([crossing, plain])
    assert (first.head, first.target) == ((1,), (7, 8))
    assert (second.head, second.target) == ((1,), (2, 9))
    assert second.ids == plain.ids
