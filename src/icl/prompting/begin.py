"""Begin-of-sequence: which ids stand in front of every prompt."""

from __future__ import annotations

from typing import Any, Literal, cast

from metashot.base.errors import ConfigError
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.prompt import Ids

BosChoice = Literal["auto"] | bool
_SAMPLE = "a"


def bos_ids(tokenizer: AnyTokenizer, choice: BosChoice) -> Ids:
    """The ids in front of a prompt.

    Args:
        tokenizer: the model's own.
        choice: `auto` takes what the tokenizer itself prepends (nothing for GPT-2 and T5), True demands it, False
            leaves it out, as MetaICL's released code does.

    Raises:
        ConfigError: True, and the tokenizer has no begin-of-sequence token.
    """
    if choice is False:
        return ()
    prepended = _prepended(tokenizer)
    if prepended or choice == "auto":
        return prepended
    bos: Any = tokenizer.bos_token_id
    if bos is None:
        raise ConfigError(
            "prompt.bos",
            "true, but the tokenizer has no begin-of-sequence token",
            "use prompt.bos=auto or false",
        )
    return (int(bos),)


def begin_ids(tokenizer: AnyTokenizer) -> Ids:
    """Begin-of-sequence, or end-of-sequence where there is none: what an empty prompt consists of."""
    found: Any = tokenizer.bos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    return () if found is None else (int(found),)


def _prepended(tokenizer: AnyTokenizer) -> Ids:
    """What the tokenizer puts in front of a text when it may add special tokens."""
    bare, full = (
        list(cast(Any, tokenizer(_SAMPLE, add_special_tokens=added))["input_ids"]) for added in (False, True)
    )
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start])
    return ()
