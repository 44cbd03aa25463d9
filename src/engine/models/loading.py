"""Load a language model and its tokenizer, and say exactly which weights they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from metashot.base.errors import ModelError
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.engine.models.digests import tokenizer_digest
from metashot.engine.models.sizes import context_length
from metashot.engine.models.sources import ModelConfig
from metashot.engine.models.text_tokenizer import AnyTokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(slots=True)
class LanguageModel:
    """A loaded model.

    Attributes:
        model: in eval mode, on its device.
        tokenizer: the model's own.
        spec: what was asked for.
        weights_digest: sha256 over the weight files (or the random state dict).
        tokenizer_digest: sha256 over the tokenizer's serialization.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spec: ModelConfig
    weights_digest: str
    tokenizer_digest: str

    @property
    def identity(self) -> dict[str, str]:
        """What of the model decides a number."""
        return _identity(self.spec, self.weights_digest, self.tokenizer_digest)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def is_seq2seq(self) -> bool:
        """True for encoder-decoder models such as T5."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def context_length(self) -> int:
        """Longest sequence that the positions allow, in tokens."""
        return context_length(self.model.config)


def load_model(spec: ModelConfig, weights_digest: str | None = None) -> LanguageModel:
    """Load the model of `spec` in eval mode.

    Args:
        spec: the model.
        weights_digest: of its weights, where it is known already.

    Raises:
        ModelError: unknown folder, id or file, a device that is not here, or a package that is not installed.
    """
    import torch

    device = resolve_device(spec.device)
    digest = weights_digest or spec.weights_digest()
    model, tokenizer = spec.read_model(), spec.read_tokenizer()
    if not spec.places_itself:
        torch.nn.Module.to(model, device=device)
    model.eval()
    if spec.compile:
        model.forward = torch.compile(model.forward, dynamic=True)  # pyright: ignore[reportAttributeAccessIssue]
    return LanguageModel(model, tokenizer, spec, digest, tokenizer_digest(tokenizer))


def resolve_device(name: str) -> torch.device:
    """`auto` to a device; raises ModelError for a device that is not here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError("model.device", f"unknown device {name!r}", "auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "model.device", f"{name!r} asked for but torch sees no GPU", "use model.device=auto or cpu"
        )
    return device


_loading = Lock()


class LazyLanguageModel:
    """A model whose identity, tokenizer and context length are known before its weights are loaded.

    Jobs of one process that ask for the same weights share one loaded model.

    Args:
        spec: the model.
    """

    def __init__(self, spec: ModelConfig) -> None:
        self.spec = spec
        self._encoding = Lock()

    @property
    def name(self) -> str:
        """The name that results carry."""
        return self.spec.name

    @cached_property
    def tokenizer(self) -> AnyTokenizer:
        """The tokenizer alone."""
        return self.spec.read_text_tokenizer()

    @cached_property
    def context_length(self) -> int:
        """Positions of the model."""
        return context_length(self.spec.read_sizes())

    @cached_property
    def weights_digest(self) -> str:
        """sha256 of the weights, from the files on disk."""
        return self.spec.weights_digest()

    @property
    def identity(self) -> dict[str, str]:
        """What of the model decides a score."""
        return _identity(self.spec, self.weights_digest, tokenizer_digest(self.tokenizer))

    def encode(self, text: str) -> tuple[int, ...]:
        """Text to ids; no special token is added."""
        with self._encoding:  # the tokenizers library refuses a second borrower
            encoded: Any = self.tokenizer(text, add_special_tokens=False)
        return tuple(encoded["input_ids"])

    def decode(self, ids: tuple[int, ...]) -> str:
        """Ids to text, special tokens kept."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def load(self) -> LanguageModel:
        """The model, loaded on first use."""
        with _loading:  # transformers and torch's generator know of no other thread while weights are made
            return _shared_model(self.spec, self.weights_digest)


def _identity(spec: ModelConfig, weights: str, tokenizer: str) -> dict[str, str]:
    settings = spec.settings_digest()
    beside = {} if settings is None else {"settings": settings}
    if "source" in identity_of(type(spec)):  # a source of the user's own: its code and all its keys decide
        beside = {**beside, "own": digest_of(identity_of(spec))}
    return {"weights": weights, "tokenizer": tokenizer, **beside, **spec.numerics}


@lru_cache(maxsize=1)
def _shared_model(spec: ModelConfig, weights_digest: str) -> LanguageModel:
    """One model at a time stays loaded; the digest makes edited weights a different model."""
    return load_model(spec, weights_digest)
