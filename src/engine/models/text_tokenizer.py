"""Texts to ids by the `tokenizers` library alone: what prompts and fingerprints need, without transformers and torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AnyTokenizer: TypeAlias = "PreTrainedTokenizerBase | TextTokenizer"
"""What encodes prompts: a tokenizer of transformers, or a `TextTokenizer` in its place."""

_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes of transformers that are their `tokenizer.json` and nothing besides."""
_KEYS_WITHOUT_EFFECT = {
    "backend", "bos_token", "clean_up_tokenization_spaces", "eos_token", "extra_special_tokens", "is_local",
    "local_files_only", "model_max_length", "pad_token", "padding_side", "tokenizer_class", "unk_token",
}  # fmt: skip
"""Keys of `tokenizer_config.json` that change no id of a text, where every token that they name is in `tokenizer.json`."""
_LARGEST_VOCABULARY = 100_000
"""Above, transformers may replace the pattern that splits words."""


class TextTokenizer:
    """A `tokenizer.json`, called as transformers' tokenizers are.

    Args:
        backend: the tokenizer itself, without truncation and padding.
        bos_token: begin-of-sequence, or None.
        eos_token: end-of-sequence, or None.
        whole: reads the tokenizer of transformers, for chat templates.
    """

    is_fast = True

    def __init__(
        self,
        backend: Tokenizer,
        bos_token: str | None,
        eos_token: str | None,
        whole: Callable[[], PreTrainedTokenizerBase],
    ) -> None:
        self.backend_tokenizer = backend
        self.bos_token = bos_token
        self.eos_token = eos_token
        self._whole = whole

    @property
    def bos_token_id(self) -> int | None:
        """Id of begin-of-sequence."""
        return None if self.bos_token is None else self.backend_tokenizer.token_to_id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """Id of end-of-sequence."""
        return None if self.eos_token is None else self.backend_tokenizer.token_to_id(self.eos_token)

    @cached_property
    def whole(self) -> PreTrainedTokenizerBase:
        """Transformers' tokenizer."""
        return self._whole()

    @property
    def chat_template(self) -> Any:
        """The template of transformers' tokenizer."""
        return self.whole.chat_template

    def __call__(self, text: str, *, add_special_tokens: bool = True, **options: Any) -> dict[str, Any]:
        """`input_ids` and `offset_mapping` of a text; options of transformers that change neither are passed over."""
        del options
        encoded = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoded.ids, "offset_mapping": encoded.offsets}

    def decode(self, ids: list[int], **options: Any) -> str:
        """Ids to text, special tokens kept."""
        del options
        return self.backend_tokenizer.decode(ids, skip_special_tokens=False)


def read_text_tokenizer(folder: Path, whole: Callable[[], PreTrainedTokenizerBase]) -> TextTokenizer | None:
    """The tokenizer of a folder, or None where transformers would add anything to its `tokenizer.json`.

    Args:
        folder: holds `tokenizer.json` and `tokenizer_config.json`.
        whole: see `TextTokenizer`.
    """
    described, written = _json(folder / "tokenizer_config.json"), _json(folder / "tokenizer.json")
    if described is None or written is None:
        return None
    if described.get("tokenizer_class") not in _CLASSES or set(described) - _KEYS_WITHOUT_EFFECT:
        return None
    if written.get("truncation") or written.get("padding") or not written.get("post_processor"):
        return None
    named = [described.get(f"{kind}_token") for kind in ("bos", "eos", "pad", "unk")]
    wanted = [*(token for token in named if token), *(described.get("extra_special_tokens") or ())]
    present = {token["content"] for token in written.get("added_tokens", ())}
    if not all(isinstance(token, str) and token in present for token in wanted):
        return None
    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # nothing more special is raised; the tokenizer of transformers says it in one line
        return None
    if backend.get_vocab_size() > _LARGEST_VOCABULARY:
        return None
    return TextTokenizer(backend, described.get("bos_token"), described.get("eos_token"), whole)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast(dict[str, Any], content) if isinstance(content, dict) else None
