"""Control tokens in data: `<|endoftext|>` in a user's text is text, not the end of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.boundary import Spans
from metashot.icl.prompting.prompt import Encode, Ids

_BREAK = "\ufdd0"
"""Stands inside a control token that is to be read as text; a code point that Unicode keeps out of texts."""


class ControlTokens:
    """The tokens of a tokenizer that steer a model: special ones, and added ones in brackets (`<think>`, `[INST]`).

    `escape` marks them in a user's text; `encode` and `encode_spans` read marked ones as text and all others, which
    a template wrote, as the tokens that they are.

    Args:
        tokenizer: the model's own.
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self._tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self._backend = backend
        if backend is None:
            known: list[str] = list(getattr(tokenizer, "all_special_tokens", ()))
        else:
            known = [
                token.content
                for token in backend.get_added_tokens_decoder().values()
                if token.special or re.fullmatch(r"<.+>|\[.+\]", token.content)
            ]
        self._tokens = frozenset(token for token in known if token.strip())
        self._lengths = sorted({len(token) for token in self._tokens}, reverse=True)
        heads = "".join(map(re.escape, sorted({token[0] for token in self._tokens})))
        self._head = re.compile(f"[{heads}]") if heads else None

    def find(self, text: str) -> list[tuple[int, str]]:
        """Place and name of every control token in a text."""
        found: list[tuple[int, str]] = []
        end = 0
        for match in self._head.finditer(text) if self._head else ():
            start = match.start()
            if start < end:
                continue
            held = (text[start : start + length] for length in self._lengths)
            token = next((one for one in held if one in self._tokens), None)
            if token is not None:
                found.append((start, token))
                end = start + len(token)
        return found

    def escape(self, text: str) -> str:
        """The text with every control token in it marked as text."""
        return self._replaced(text, lambda token: token[0] + _BREAK + token[1:])

    def encoder(self, encode: Encode) -> Encode:
        """`encode`, for texts in which some control tokens are marked as text."""

        def read(text: str) -> Ids:
            if _BREAK not in text:
                return encode(text)
            if self._backend is None:
                ids: Any = self._tokenizer(
                    text.replace(_BREAK, ""), add_special_tokens=False, split_special_tokens=True
                )
                return tuple(ids["input_ids"])
            return tuple(self._renamed.encode(self._mapped(text), add_special_tokens=False).ids)

        return read

    def spans(self, texts: Sequence[str]) -> tuple[Sequence[str], Callable[[str], tuple[Ids, Spans]]] | None:
        """Texts and an encoder for them where one of `texts` holds a marked token, else None."""
        if not any(_BREAK in text for text in texts):
            return None

        def encode(text: str) -> tuple[Ids, Spans]:
            encoded = self._renamed.encode(text, add_special_tokens=False)
            return tuple(encoded.ids), tuple(encoded.offsets)

        return [self._mapped(text) for text in texts], encode

    def _mapped(self, text: str) -> str:
        """The text for `_renamed`: unmarked control tokens by their other names, marked ones written out."""
        return self._replaced(text, self._names.__getitem__).replace(_BREAK, "")

    def _replaced(self, text: str, name: Callable[[str], str]) -> str:
        parts: list[str] = []
        end = 0
        for start, token in self.find(text):
            parts += [text[end:start], name(token)]
            end = start + len(token)
        return "".join([*parts, text[end:]]) if parts else text

    @cached_property
    def _names(self) -> dict[str, str]:
        return {token: f"\ue100{place}\ue101" for place, token in enumerate(sorted(self._tokens))}

    @cached_property
    def _renamed(self) -> Any:
        """The tokenizer with other names for its control tokens, so that no text holds one by chance."""
        from tokenizers import Tokenizer

        written = json.loads(self._backend.to_str())
        names, model = self._names, written["model"]
        for token in written["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        vocabulary: Any = model["vocab"]
        model["vocab"] = (
            {names.get(token, token): id_ for token, id_ in vocabulary.items()}
            if isinstance(vocabulary, dict)
            else [[names.get(token, token), score] for token, score in vocabulary]
        )
        if model.get("unk_token") is not None:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        written["post_processor"] = None
        written["truncation"] = written["padding"] = None
        return Tokenizer.from_str(json.dumps(written))


def control_note(task: str, texts: Iterable[str], control: ControlTokens) -> str | None:
    """What to tell the user of control tokens in a task's texts, or None where there is none."""
    held = [found[0][1] for found in map(control.find, dict.fromkeys(texts)) if found]
    if not held:
        return None
    names = ", ".join(map(repr, sorted(set(held))[:3]))
    return (
        f"task {task!r}: {len(held)} texts hold {names}, which the tokenizer knows as control tokens; "
        "in a prompt they are read as the text that they are"
    )
