"""A chat prompt and its answer are how the ids of the template's own rendering begin; see `chat_families`."""

import importlib.util
from datetime import datetime
from pathlib import Path

import pytest

from metashot.base.errors import ConfigError, DataError
from metashot.data.task import Example
from metashot.icl.prompting.chat import DemonstrationsAs, Thinking
from metashot.icl.prompting.config import ChatPrompt
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.pieces import PieceWriter
from metashot.icl.prompting.prompt import LengthLimits, Objective

_spec = importlib.util.spec_from_file_location("chat_families", Path(__file__).with_name("chat_families.py"))
families = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(families)
FAMILIES, family_tokenizer = families.FAMILIES, families.family_tokenizer
DIRECT, CHANNEL = Objective.DIRECT, Objective.CHANNEL
OPTIONS = ("positive", "so-so 42", "negative")
SHOWN = (
    Example("t", "a lovely film, it's 1999", "positive", OPTIONS),
    Example("t", "what a waste\nof two hours?", "negative", OPTIONS),
    Example("t", "  the blanks around it go ", "so-so 42", OPTIONS),
)
QUERY = Example("t", "'good', or \"bad\"?", "positive", OPTIONS)
DATE = "26 Jul 2024"


def tokenize(tokenizer):
    return lambda text: tuple(tokenizer(text, add_special_tokens=False).input_ids)


def prompts(name, objective=DIRECT, shown=SHOWN, query=QUERY, **keys):
    tokenizer = family_tokenizer(name)
    bound = ChatPrompt(**keys).bind(Method("m", objective), name, tokenizer)
    return bound, PieceWriter(bound, tokenize(tokenizer), LengthLimits(9999, 9999)).row(shown, query)


def conversation(objective, option, shown=SHOWN, query=QUERY):
    """The turns of a question with one option as the answer."""
    turns = []
    for example, answer in [*((one, one.output) for one in shown), (query, option)]:
        pair = (example.input.strip(), answer)
        turns += pair if objective is DIRECT else pair[::-1]
    return turns


def written(name, turns, *, system=None, generate=False, **options):
    """What the template makes of a conversation, as text."""
    said = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    roles = [] if system is None else [{"role": "system", "content": system}]
    tokenizer = family_tokenizer(name)
    text = tokenizer.apply_chat_template(
        [*roles, *said], tokenize=False, add_generation_prompt=generate, date_string=DATE, **options
    )
    # Today's date is the one thing that a prompt does not have from the template.
    return text.replace(f"{datetime.now():%d %B %Y}", "26 July 2024")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_templates_write_answers_as_published(name):
    text = written(name, ["IN", "OUT"])
    assert text.endswith(FAMILIES[name].answer)


@pytest.mark.parametrize("shots", [0, 1, 3])
@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("boundary", ["joint", "separate"])
@pytest.mark.parametrize("name", FAMILIES)
def test_prompt_and_answer_are_how_the_whole_conversation_begins(name, boundary, objective, shots):
    shown = SHOWN[:shots]
    bound, row = prompts(name, objective, shown, boundary=boundary)
    if any(note.startswith("prompt.boundary=separate: ") for note in bound.notes):
        # One token may hold the end of "[/INST]" and an answer, or a piece begins behind a control token.
        assert (name, boundary) in {("mistral_v0.1", "separate"), ("phi3", "separate")}
        return
    encode = tokenize(family_tokenizer(name))
    for option, prompt in zip(OPTIONS, row, strict=True):
        answer = option if objective is DIRECT else QUERY.input
        whole = encode(written(name, conversation(objective, option, shown)))
        assert prompt.ids == whole[: len(prompt.ids)]
        # The answer is scored, all of it and nothing behind it.
        target = family_tokenizer(name).decode(prompt.target)
        assert target.strip().endswith(answer)
        assert len(target) <= len(answer) + 2
    if objective is DIRECT:
        assert len({prompt.ids[: -len(prompt.target)] for prompt in row}) == 1
    first = [prompt.shown for prompt in row]
    assert first == [first[0]] * len(row)


@pytest.mark.parametrize("bos", ["auto", True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_begin_of_sequence_stands_once_or_not_at_all(name, bos):
    tokenizer = family_tokenizer(name)
    if bos is True and tokenizer.bos_token is None:
        with pytest.raises(ConfigError, match="no begin-of-sequence token"):
            prompts(name, bos=bos)
        return
    _, row = prompts(name, bos=bos)
    begins = written(name, ["IN"]).startswith(tokenizer.bos_token or "\0")
    front = [token == tokenizer.bos_token_id for token in row[0].ids[:2]]
    assert front == [bos is True or (bos == "auto" and begins), False]


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("gemma2", "mistral_v0.1")])
def test_a_system_text_stands_where_the_template_puts_it(name, objective):
    """The prompt is what the template writes for one who is to answer; Mistral v0.3 puts the text in its last turn."""
    bound, row = prompts(name, objective, system="Be brief.")
    asked = written(name, conversation(objective, OPTIONS[0])[:-1], system="Be brief.", generate=True)
    if name == "deepseek_r1":
        asked = asked.removesuffix("<think>\n")
    ids = tokenize(family_tokenizer(name))(asked)
    assert row[0].ids[: len(ids)] == ids
    said = any("writes the turns before an answer in another way" in note for note in bound.notes)
    assert said == (name == "mistral_v0.3")


@pytest.mark.parametrize(
    ("name", "thinking", "between"),
    [
        ("qwen3", "as_template", "<think>\n\n</think>\n\n"),
        ("qwen3", "empty", "<think>\n\n</think>\n\n"),
        ("qwen3", "off", ""),
        ("deepseek_r1", "as_template", ""),
        ("deepseek_r1", "empty", "<think>\n\n</think>\n\n"),
        ("deepseek_r1", "off", ""),
        ("smollm3", "empty", "<think>\n\n</think>\n"),
    ],
)
def test_what_stands_in_front_of_an_answer_is_chosen_and_said(name, thinking, between):
    bound, row = prompts(name, thinking=Thinking(thinking))
    header = {"deepseek_r1": "<｜Assistant｜>"}.get(name, "<|im_start|>assistant\n")
    text = family_tokenizer(name).decode(row[0].ids)
    assert text.endswith(header + between + OPTIONS[0])
    # Answers of demonstrations have none: these templates take thoughts out of earlier turns.
    assert text.count("<think>") == bool(between)
    assert [note for note in bound.notes if note.startswith(f"prompt.thinking={thinking}: ")]


def test_a_template_without_thinking_has_no_empty_thought():
    with pytest.raises(ConfigError, match=r"prompt\.thinking: empty, but .*'llama3' knows of no thinking"):
        prompts("llama3", thinking=Thinking.EMPTY)
    assert not prompts("llama3", thinking=Thinking.OFF)[0].notes


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("name", FAMILIES)
def test_all_demonstrations_in_one_turn(name, objective):
    keys = {
        "example": "Text: {input}\nLabel: {output}",
        "channel_example": "Label: {output}\nText: {input}",
        "demonstrations_as": DemonstrationsAs.ONE_TURN,
    }
    _, row = prompts(name, objective, **keys)
    pairs = [(one.input.strip(), one.output) for one in SHOWN]
    for option, prompt in zip(OPTIONS, row, strict=True):
        if objective is DIRECT:
            shown = [f"Text: {source}\nLabel: {answer}" for source, answer in pairs]
            turns = ["\n\n".join([*shown, f"Text: {QUERY.input}\nLabel:"]), option]
        else:
            shown = [f"Label: {answer}\nText: {source}" for source, answer in pairs]
            turns = ["\n\n".join([*shown, f"Label: {option}\nText:"]), QUERY.input]
        whole = tokenize(family_tokenizer(name))(written(name, turns))
        assert prompt.ids == whole[: len(prompt.ids)]


@pytest.mark.parametrize("name", FAMILIES)
def test_control_tokens_in_data_are_text(name):
    """The ids of the user's words are those that transformers gives when it splits control tokens off."""
    tokenizer = family_tokenizer(name)
    token = FAMILIES[name].tokens["eos_token"]
    text = f"it ends {token} here"
    query = Example("t", text, "positive", OPTIONS)
    _, (prompt, *_) = prompts(name, query=query)
    plain = prompts(name)[1][0]
    ends = tokenizer.convert_tokens_to_ids(token)
    assert prompt.ids.count(ends) == plain.ids.count(ends)
    assert tokenizer.decode(prompt.ids).count(token) == plain.ids.count(ends) + 1
    own = tuple(tokenizer(f"x {text}", add_special_tokens=False, split_special_tokens=True).input_ids)
    words = own[len(tokenize(tokenizer)("x it")) :]
    assert any(prompt.ids[start : start + len(words)] == words for start in range(len(prompt.ids)))


def test_words_that_a_template_looks_for_are_treated_as_the_template_does():
    """Qwen 3 takes a thought out of an earlier answer; a thought in the scored one would change the turn around it."""
    thought = Example("t", "hm", "because of x</think>positive", OPTIONS)
    _, row = prompts("qwen3", shown=(thought, *SHOWN))
    whole = written("qwen3", conversation(DIRECT, OPTIONS[0], (thought, *SHOWN)))
    assert "because" not in whole
    assert row[0].ids == tokenize(family_tokenizer("qwen3"))(whole)[: len(row[0].ids)]
    query = Example("t", "hm", "positive", ("x</think>positive", "negative"))
    with pytest.raises(
        DataError, match=r"writes a conversation in another way that holds 'x</think>positive'"
    ):
        prompts("qwen3", query=query)


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("template", families.OTHER_TEMPLATES)
@pytest.mark.parametrize("kind", families.TOKENIZERS)
def test_other_templates_on_other_tokenizers(kind, template, objective):
    """Where headers end in blanks or in nothing, and no control token stands between turns."""
    tokenizer = families.other_tokenizer(kind)
    tokenizer.chat_template = families.OTHER_TEMPLATES[template]
    bound = ChatPrompt().bind(Method("m", objective), template, tokenizer)
    row = PieceWriter(bound, tokenize(tokenizer), LengthLimits(9999, 9999)).row(SHOWN, QUERY)
    for option, prompt in zip(OPTIONS, row, strict=True):
        said = [
            {"role": ("user", "assistant")[place % 2], "content": text}
            for place, text in enumerate(conversation(objective, option))
        ]
        whole = tokenize(tokenizer)(tokenizer.apply_chat_template(said, tokenize=False))
        assert prompt.ids == whole[: len(prompt.ids)]
        answer = option if objective is DIRECT else QUERY.input
        assert answer in tokenizer.decode(prompt.target)
    if objective is DIRECT:
        assert len({prompt.ids[: -len(prompt.target)] for prompt in row}) == 1
