"""Weights from a folder in transformers' layout: kernels, placement, quantization, each with a one-line error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metashot.base.errors import ModelError
from metashot.engine.models.digests import weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["int8", "int4"]
_OWN_CODE = "trust_remote_code"


@dataclass(frozen=True, slots=True)
class WeightOptions:
    """How weights are read.

    Attributes:
        dtype: of the weights; quantized ones compute in it.
        attn_implementation: as transformers names it; None lets the library choose.
        device_map: None, or transformers' placement over devices (`auto`, `cuda:0`, ...).
        quantization: bitsandbytes with 8 or 4 (NF4) bits, for inference; None keeps `dtype`.
        trust_remote_code: run Python code that the folder brings.
    """

    dtype: torch.dtype
    attn_implementation: str | None = None
    device_map: str | None = None
    quantization: Quantization | None = None
    trust_remote_code: bool = False


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The transformers config of a folder.

    Raises:
        ModelError: unreadable, or made by code that the folder brings and that is not trusted.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a foreign file makes transformers raise
        raise _explained(folder, error, "cannot read config.json", "check the folder") from error


def read_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Raises:
        ModelError: missing, unreadable, or made by code that is not trusted.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the tokenizers library raises nothing more special
        raise _explained(folder, error, "no readable tokenizer", "add the tokenizer's files") from error


def read_weights(folder: Path, options: WeightOptions) -> PreTrainedModel:
    """The model of a folder, from one or several files; those of the older PyTorch format may hold tensors only.

    Raises:
        ModelError: weights that cannot be read, an attention that the model does not have, untrusted code, or a
            quantization or placement whose package or device is missing.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = read_config(folder, trust_remote_code=options.trust_remote_code)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    given = {
        "quantization_config": quantization_config(options.quantization, options.dtype),
        "device_map": options.device_map,
    }
    try:
        model = auto.from_pretrained(
            folder,
            dtype=options.dtype,
            attn_implementation=options.attn_implementation,
            use_safetensors=weight_files(folder)[0].suffix == ".safetensors",
            trust_remote_code=options.trust_remote_code,
            **{key: value for key, value in given.items() if value is not None},
        )
    except Exception as error:  # whatever foreign weights make transformers raise
        way_out = "check the folder, model.attn_implementation, model.device_map and model.quantization"
        raise _explained(folder, error, "cannot load the model", way_out) from error
    if options.quantization == "int4":
        _without_repacking(model)
    return model


def _without_repacking(model: PreTrainedModel) -> None:
    """Four-bit layers multiply alike on every CPU.

    With AVX512-BF16, bitsandbytes 0.50 repacks weights at the first forward pass without gradients: it then rounds to
    bfloat16 whatever the dtype, gives no gradients when training goes on, and fails unless sizes are multiples of 32 and 64.
    """
    layers: list[Any] = [one for one in model.modules() if hasattr(one, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


def quantization_config(quantization: Quantization | None, dtype: torch.dtype) -> Any:
    """Transformers' description of a quantization, or None.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if quantization is None:
        return None
    try:
        import bitsandbytes  # noqa: F401  # pyright: ignore[reportUnusedImport]
        from transformers import BitsAndBytesConfig
    except ImportError:
        raise ModelError(
            "model.quantization",
            f"{quantization} needs the package bitsandbytes",
            "pip install 'metashot[train]'",
        ) from None
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _explained(folder: Path, error: Exception, problem: str, way_out: str) -> ModelError:
    """The one-line error for whatever transformers raised."""
    if _OWN_CODE in str(error):
        return ModelError(
            "model.trust_remote_code",
            f"{str(folder)!r} brings Python code of its own, which is not run unasked",
            "read that code, then set model.trust_remote_code=true",
        )
    return ModelError(str(folder), f"{problem}: {first_line(error)}", way_out)


def first_line(error: Exception) -> str:
    """The beginning of an error's text, for one-line errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
