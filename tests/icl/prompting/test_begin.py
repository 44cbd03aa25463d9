"""Begin-of-sequence: what the tokenizer itself would prepend, in front of everything and never cut."""

import pytest
from tokenizers import processors

from metashot.base.errors import ConfigError
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.icl.prompting.begin import bos_ids


def beginning(*tokens):
    """The tiny tokenizer, prepending `tokens` as Llama's and Gemma's do."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.bos_token = tokens[0]
    pairs = [(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens]
    template = " ".join([*tokens, "$A", "</s>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[*pairs, ("</s>", tokenizer.convert_tokens_to_ids("</s>"))]
    )
    return tokenizer


def test_auto_is_what_the_tokenizer_prepends_and_not_what_it_appends():
    one, two = beginning("<s>"), beginning("[gMASK]", "<sop>")
    assert bos_ids(one, "auto") == (one.convert_tokens_to_ids("<s>"),)
    assert bos_ids(two, "auto") == tuple(two.convert_tokens_to_ids(["[gMASK]", "<sop>"]))


def test_auto_adds_nothing_that_the_tokenizer_would_not():
    """GPT-2 knows a begin-of-sequence token, but its tokenizer prepends none: published scores have none."""
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "</s>"
    assert bos_ids(tokenizer, "auto") == ()
    assert bos_ids(tokenizer, True) == (tokenizer.bos_token_id,)


def test_false_leaves_it_out_and_true_demands_it():
    assert bos_ids(beginning("<s>"), False) == ()
    with pytest.raises(ConfigError, match=r"prompt\.bos: true, but the tokenizer has no begin-of-sequence"):
        bos_ids(tiny_tokenizer(), True)
