"""A chat template that comes with a model renders as in transformers, or ends in words within bounds."""

import time

import pytest

from metashot.engine.models.chat_template import render_chats
from metashot.engine.models.sources import TinyModel

SAID = [{"role": "user", "content": "good day"}, {"role": "assistant", "content": "yes ≠ no"}]
HOSTILE = {
    "{{ 1/0 }}": "ZeroDivisionError",
    "{{ 'x' * 100000000000 }}": "takes more than",
    "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}": "takes more than",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError|takes more than",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}": "takes more than",
    "{{ messages|tojson(indent=10**9) }}": "takes more than",
    "{{ '%999999999d' % 1 }}": "takes more than",
    "{{ '%99999999d' % 1 }}": "writes 99,999,999 characters",
    "{{ raise_exception('no system turn') }}": "no system turn",
    "{{ messages[7].content }}": "UndefinedError",
    "{% for %}": "TemplateSyntaxError",
    "{{ ''.__class__.__mro__ }}": "SecurityError",
}


@pytest.fixture
def tokenizer():
    return TinyModel("tiny").read_tokenizer()


def test_a_template_renders_as_in_transformers(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{{ word }}"
    expected = tokenizer.apply_chat_template(SAID, tokenize=False, word="end")
    (found,) = render_chats(tokenizer, [(SAID, {"word": "end"})])
    assert found == expected == "<user>good day\n<assistant>yes ≠ no\nend"
    text = TinyModel("tiny").read_text_tokenizer()
    text.whole.chat_template = tokenizer.chat_template
    assert render_chats(text, [(SAID, {"word": "end"})]) == [expected]


@pytest.mark.parametrize("template", HOSTILE)
def test_a_hostile_template_ends_in_words_and_in_time(tokenizer, template):
    tokenizer.chat_template = template
    before = time.monotonic()
    with pytest.raises(ValueError, match=HOSTILE[template]):
        render_chats(tokenizer, [(SAID, {})])
    assert time.monotonic() - before < 60
