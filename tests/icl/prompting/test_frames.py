"""Templates and chat templates, to the character; pieces tokenized jointly; whole demonstrations under a limit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import ConfigError, DataError
from metashot.base.identity import identity_of
from metashot.data.task import Example, TaskData, TaskType
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.icl.prompting.boundary import span_encoder, split_jointly
from metashot.icl.prompting.config import ChatPrompt, MetaiclPrompt, TemplatePrompt
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import LengthLimits, Objective
from metashot.icl.prompting.template import template_frame
from metashot.icl.scoring.cell import PromptRules, Truncation, build_cell, differing_at_borders
from metashot.icl.scoring.preview import cell_prompt, preview

DIRECT, CHANNEL = Objective.DIRECT, Objective.CHANNEL
REVIEW = "Review: {input}\nSentiment: {output}"
CHATML = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] | trim + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
BEGINNING = "</s>" + CHATML
NUMBERED = CHATML.replace("'<' + m['role']", "'<' + loop.index | string + m['role']")
TONE = CHATML.replace("m['content'] | trim", "(tone or '') + m['content'] | trim")
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHATML
)
SYSTEM_LAST = (
    "{% for m in messages if m['role'] != 'system' %}{{ '<' + m['role'] + '>' + (messages[0]['content'] if loop.last and m['role'] == 'user' and "
    "messages[0]['role'] == 'system' else '') + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def encode(text):
    return tuple(map(ord, text))


def decode(ids):
    return "".join(map(chr, ids))


def task(n=2, test=("fine", "so so"), options=("good", "bad"), length=4):
    shown = tuple(Example("t", chr(97 + i) * length, options[i % 2], options) for i in range(n))
    return TaskData(
        "t", 1, TaskType.CLASSIFICATION, shown, tuple(Example("t", one, options[0], options) for one in test)
    )


def rules(
    prompt,
    objective=DIRECT,
    limits=None,
    truncation=Truncation.SHARED,
    tokenizer=None,
    characters=True,
    **method,
):
    """Rules for `encode`, under which a text can be read off its ids, or for the tokenizer's own ids."""
    how = Method("m", objective, **method)
    bound = prompt.bind(how, "model", tokenizer or tiny_tokenizer())
    if characters and bound.spans is not None:
        bound = replace(bound, spans=lambda text: (encode(text), tuple((n, n + 1) for n in range(len(text)))))
    return PromptRules(how, bound, truncation, limits or LengthLimits(), 4096)


def texts(data, how, example=0, option=1):
    """(context, target) of one option, as text."""
    cell = build_cell(data, encode, how)
    request = cell.requests[cell.index[0][example][option]]
    return decode(request.context), decode(request.target)


def chatty(template=CHATML):
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "</s>"
    tokenizer.chat_template = template
    return tokenizer


def test_a_template_with_instruction_and_label_words():
    prompt = TemplatePrompt(
        example=REVIEW + ".",
        instruction="Judge.",
        separator=" ## ",
        labels={"good": "great", "bad": "terrible"},
    )
    context, target = texts(task(), rules(prompt))
    assert context == (
        "Judge. ## Review: aaaa\nSentiment: great. ## Review: bbbb\nSentiment: terrible. ## Review: fine\nSentiment:"
    )
    assert target == " terrible"  # the blank goes with the word, as tokenizers have it


def test_the_channel_template_swaps_lines():
    context, target = texts(task(), rules(TemplatePrompt(example=REVIEW), CHANNEL))
    assert (
        context == "Sentiment: good\nReview: aaaa\n\nSentiment: bad\nReview: bbbb\n\nSentiment: bad\nReview:"
    )
    assert target == " fine"


def test_a_channel_template_of_its_own():
    prompt = TemplatePrompt(
        example="{input} => {output}", channel_example="({output}) {input}", separator="\n"
    )
    assert texts(task(1), rules(prompt, CHANNEL)) == ("(good) aaaa\n(bad)", " fine")


def test_without_demonstrations_the_template_is_bare():
    assert texts(task(0), rules(TemplatePrompt(example=REVIEW))) == ("Review: fine\nSentiment:", " bad")


def test_demonstrations_without_labels_end_at_their_input():
    shown = tuple(Example("t", text, "", ("",)) for text in ("aa", "bb"))
    data = TaskData("t", 1, TaskType.CLASSIFICATION, shown, task().test)
    assert texts(data, rules(TemplatePrompt(example=REVIEW)))[0] == (
        "Review: aa\n\nReview: bb\n\nReview: fine\nSentiment:"
    )
    assert texts(data, rules(TemplatePrompt(example=REVIEW), CHANNEL))[0] == (
        "Review: aa\n\nReview: bb\n\nSentiment: bad\nReview:"
    )


@pytest.mark.parametrize(
    ("template", "objective", "message"),
    [
        ("{input}", DIRECT, r"prompt\.example: '\{input\}' must hold \{input\} once and \{output\} once"),
        ("{output}\n{input}", DIRECT, r"in this order"),
        ("{input} => {output}", CHANNEL, r"prompt\.channel_example: is not set"),
    ],
)
def test_templates_that_cannot_be(template, objective, message):
    with pytest.raises(ConfigError, match=message):
        template_frame(objective, example=template)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"good": "great"}, r"prompt\.labels: has no word for 'bad'"),
        ({"good": "x", "bad": "x"}, r"gives two options of task 't' the word 'x'"),
    ],
)
def test_label_words_that_cannot_tell_options_apart(labels, message):
    with pytest.raises(ConfigError, match=message):
        build_cell(task(), encode, rules(TemplatePrompt(example=REVIEW, labels=labels)))


def test_label_words_of_another_task_do_no_harm():
    how = rules(TemplatePrompt(example=REVIEW, labels={"yes": "yep", "no": "nope"}))
    assert texts(task(), how)[1] == " bad"


def test_chat_turns():
    context, target = texts(task(), rules(ChatPrompt(system="Judge."), tokenizer=chatty()))
    assert context == (
        "<system>Judge.\n<user>aaaa\n<assistant>good\n<user>bbbb\n<assistant>bad\n<user>fine\n<assistant>"
    )
    assert target == "bad"


def test_the_chat_prompt_is_what_the_template_writes():
    tokenizer, data = chatty(), task(3)
    messages = []
    for example in data.demonstrations:
        messages += [
            {"role": "user", "content": example.input},
            {"role": "assistant", "content": example.output},
        ]
    messages.append({"role": "user", "content": data.test[0].input})
    written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert texts(data, rules(ChatPrompt(), tokenizer=tokenizer))[0] == written


def test_channel_chat_lets_the_user_say_the_label():
    assert texts(task(1), rules(ChatPrompt(), CHANNEL, tokenizer=chatty())) == (
        "<user>good\n<assistant>aaaa\n<user>bad\n<assistant>",
        "fine",
    )


def test_begin_of_sequence_that_the_template_writes_stands_once_and_can_go():
    tokenizer = chatty(BEGINNING)
    for bos, expected in (("auto", (tokenizer.bos_token_id,)), (False, ())):
        bound = rules(ChatPrompt(bos=bos), tokenizer=tokenizer).prompt
        assert bound.bos == expected
        assert bound.frame.opening == "<user>"


def test_variables_reach_the_template():
    tokenizer = chatty(TONE)
    context, _ = texts(task(1), rules(ChatPrompt(options={"tone": "(!)"}), tokenizer=tokenizer))
    assert context == "<user>(!)aaaa\n<assistant>(!)good\n<user>(!)fine\n<assistant>(!)"


def test_a_system_text_in_the_last_turn():
    how = rules(ChatPrompt(system="Judge. "), tokenizer=chatty(SYSTEM_LAST))
    assert texts(task(1), how)[0] == "<user>aaaa\n<assistant>good\n<user>Judge. fine\n<assistant>"
    assert texts(task(0), how)[0] == "<user>Judge. fine\n<assistant>"


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (None, None, r"prompt: model 'model' has no chat template"),
        (NO_SYSTEM, "Judge.", r"prompt\.system: .*refuses the conversation: System role not supported"),
        (NUMBERED, None, r"writes a turn in different ways"),
        ("<user>", None, r"leaves out turns"),
    ],
)
def test_chat_templates_that_will_not_do(template, system, message):
    with pytest.raises(ConfigError, match=message):
        rules(ChatPrompt(system=system), tokenizer=chatty(template))


def test_a_layout_is_metaicls():
    with pytest.raises(ConfigError, match=r"method\.layout: 'space' is a layout of prompt=metaicl"):
        rules(ChatPrompt(), tokenizer=chatty(), layout="space")


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize(
    "prompt", [TemplatePrompt(example=REVIEW, instruction="Judge."), ChatPrompt(system="Judge.")]
)
def test_whole_demonstrations_are_dropped_and_the_opening_stays(prompt, objective):
    """Six demonstrations of over 20 characters; the limit leaves room for some, for all test examples alike."""
    how = rules(prompt, objective, LengthLimits(per_example=80, sequence=150), tokenizer=chatty())
    data = task(6)
    cell = build_cell(data, encode, how)
    shown = cell.shown[0][0][0]
    assert 0 < shown < 6
    assert {number for row in cell.shown[0] for number in row} == {shown}
    assert max(request.length for request in cell.requests) <= 150
    fewer = TaskData(data.task, 1, data.task_type, data.demonstrations[6 - shown :], data.test)
    assert build_cell(fewer, encode, rules(prompt, objective, tokenizer=chatty())).requests == cell.requests
    more = TaskData(data.task, 1, data.task_type, data.demonstrations[5 - shown :], data.test)
    wider = build_cell(more, encode, rules(prompt, objective, tokenizer=chatty()))
    assert max(request.length for request in wider.requests) > 150


def test_no_room_for_one_demonstration():
    how = rules(TemplatePrompt(example=REVIEW), limits=LengthLimits(per_example=64, sequence=40))
    with pytest.raises(ConfigError, match=r"k=2 is too large for the context.*not one whole demonstration"):
        build_cell(task(length=30), encode, how)


def test_the_released_cut_is_for_released_layouts():
    how = rules(TemplatePrompt(example=REVIEW), truncation=Truncation.PER_OPTION)
    with pytest.raises(ConfigError, match=r"truncation: per_option cuts inside demonstrations"):
        build_cell(task(), encode, how)


def test_a_long_input_is_cut_inside_the_template():
    data = task(1, test=("x" * 200,), length=200)
    context, _ = texts(data, rules(TemplatePrompt(example=REVIEW), limits=LengthLimits(per_example=60)))
    shown, query = context.split("\n\n")
    room = 58 - len("Review: \nSentiment: good")
    assert shown == "Review: " + "a" * room + "\nSentiment: good"
    assert query.startswith("Review: xxx")
    assert query.endswith("x\nSentiment:")
    assert len("\n\n" + query + " good") == 58


def test_an_output_longer_than_an_example_is_refused():
    shown = (Example("t", "a", "b" * 80, ("b" * 80, "c")),)
    data = TaskData("t", 1, TaskType.CLASSIFICATION, shown, task().test)
    with pytest.raises(DataError, match="an output of 81 tokens"):
        build_cell(data, encode, rules(TemplatePrompt(example=REVIEW), limits=LengthLimits(per_example=60)))


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("sequence", [1024, 150])
@pytest.mark.parametrize(
    "prompt",
    [
        MetaiclPrompt(bos=True),
        MetaiclPrompt(bos=True, boundary="joint"),
        TemplatePrompt(example=REVIEW, instruction="Judge.", bos=True),
        ChatPrompt(system="Judge.", boundary="joint"),
    ],
    ids=["bos", "joint", "template", "chat"],
)
def test_the_preview_and_the_record_are_the_prompt(prompt, objective, sequence):
    tokenizer, data = chatty(BEGINNING), task(6)

    def ids(text):
        return tuple(tokenizer(text, add_special_tokens=False).input_ids)

    def text(tokens):
        return tokenizer.decode(list(tokens))

    how = rules(
        prompt,
        objective,
        LengthLimits(per_example=100, sequence=sequence),
        tokenizer=tokenizer,
        characters=False,
    )
    cell = build_cell(data, ids, how)
    segments = preview(data, cell, ids, text, how, example=1, option=1)
    request = cell.requests[cell.index[0][1][1]]
    assert "".join(segment.text for segment in segments) == text(request.context + request.target)
    assert request.context[0] == tokenizer.bos_token_id
    assert segments[-1].text == text(request.target)
    if sequence == 1024:
        assert text(request.context).removeprefix("</s>").startswith(cell_prompt(data, how).demonstrations)


def test_begin_of_sequence_is_in_the_limit_and_in_the_fingerprint():
    tokenizer = chatty()
    cut = LengthLimits(per_example=64, sequence=60)
    with_bos, without = (
        rules(MetaiclPrompt(bos=bos), limits=cut, tokenizer=tokenizer) for bos in (True, False)
    )
    cells = [build_cell(task(8), encode, how) for how in (with_bos, without)]
    assert [max(request.length for request in cell.requests) for cell in cells] == [60, 60]
    first, second = (cell.requests[0].context for cell in cells)
    assert first[0] == tokenizer.bos_token_id
    assert second[1:] == first[1:]
    assert identity_of(with_bos.prompt) != identity_of(without.prompt)


def test_with_begin_of_sequence_the_first_target_token_is_scored():
    data = TaskData("t", 1, TaskType.CLASSIFICATION, (), (Example("t", "", "good", ("good", "bad")),))
    cell = build_cell(data, encode, rules(MetaiclPrompt(bos=True), tokenizer=chatty()))
    assert [request.scored for request in cell.requests] == [len("\ngood"), len("\nbad")]


merging = tiny_tokenizer(["the answer is right. the answer is wrong."] * 20, vocab_size=400)


@given(st.lists(st.text(alphabet="theanswr is.\n é😀", max_size=12), min_size=1, max_size=6))
def test_joint_pieces_are_the_ids_of_the_whole_text(texts):
    parts = split_jointly(texts, span_encoder(merging))
    assert [token for part in parts for token in part] == merging(
        "".join(texts), add_special_tokens=False
    ).input_ids
    assert len(parts) == len(texts)
    for count in range(len(texts)):
        # What is assigned up to a border never reaches beyond it.
        read = merging.decode([token for part in parts[:count] for token in part])
        assert "".join(texts).startswith(read)
        assert len(read) <= len("".join(texts[:count]))


def test_a_token_over_a_border_is_scored_as_a_whole():
    """Separately " answ" and "er" are two pieces; jointly " answer" is one token, which belongs to the target."""
    assert merging.tokenize("the answer") == ["the", "Ġanswer"]
    assert split_jointly(["the answ", "er"], span_encoder(merging)) == [
        tuple(merging("the").input_ids),
        tuple(merging(" answer").input_ids),
    ]


def test_the_plan_counts_examples_that_differ_at_borders():
    def ids(text):
        return tuple(merging(text, add_special_tokens=False).input_ids)

    how = rules(TemplatePrompt(example="{input}{output}"), tokenizer=merging, characters=False)
    data = task(0, test=("the answ", "zzz"), options=("er", "no"))
    assert differing_at_borders(data, ids, how, span_encoder(merging)) == 1


def test_joint_and_separate_agree_where_no_token_crosses():
    def ids(text):
        return tuple(merging(text, add_special_tokens=False).input_ids)

    joint, separate = (
        rules(MetaiclPrompt(boundary=b), tokenizer=merging, characters=False) for b in ("joint", "separate")
    )
    assert build_cell(task(), ids, joint).requests == build_cell(task(), ids, separate).requests
