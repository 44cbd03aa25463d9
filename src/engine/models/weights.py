"""Weights from a folder in transformers' layout: kernels, placement, quantization, each with a one-line error."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

from metashot.base.errors import ModelError
from metashot.base.extras import import_extra
from metashot.base.json_text import read_json
from metashot.engine.models.digests import weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["int8", "int4"]
_OWN_CODE = "trust_remote_code"
_NAMED = 3
"""Tensors that an error names before it counts the rest."""
_NO_WEIGHTS = re.compile(
    r"\.(attn|attention)\.(bias|masked_bias|causal_mask)$|rotary_emb\.inv_freq$|(^|\.)position_ids$"
)
"""Masks and rotary tables that older versions of transformers saved beside the weights, and that models now compute."""


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

    An adapter beside the model's files is left where it is.

    Raises:
        ModelError: weights that cannot be read, or lack tensors of the model, or hold others; an attention that the
            model does not have, untrusted code, or a quantization or placement whose package or device is missing.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = read_config(folder, trust_remote_code=options.trust_remote_code)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    stored = stored_quantization(folder)
    given = {
        "quantization_config": None if stored else quantization_config(options.quantization, options.dtype),
        "device_map": options.device_map,
    }
    try:
        with _without_adapter(folder) as alone, _without_report():
            loaded: Any = auto.from_pretrained(
                alone,
                dtype=options.dtype,
                attn_implementation=options.attn_implementation,
                use_safetensors=weight_files(folder)[0].suffix == ".safetensors",
                trust_remote_code=options.trust_remote_code,
                ignore_mismatched_sizes=True,  # they are told below, by name
                output_loading_info=True,
                **{key: value for key, value in given.items() if value is not None},
            )
    except Exception as error:  # whatever foreign weights make transformers raise
        way_out = "check the folder, model.attn_implementation, model.device_map and model.quantization"
        raise _explained(folder, error, "cannot load the model", way_out) from error
    model, told = loaded
    unexpected = {name for name in told["unexpected_keys"] if not _NO_WEIGHTS.search(name)}
    check_tensors(
        str(folder), type(model).__name__, told["missing_keys"], unexpected, told["mismatched_keys"]
    )
    if "int4" in (stored, options.quantization):
        _without_repacking(model)
    return model


def check_tensors(
    where: str,
    model: str,
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Iterable[tuple[str, Any, Any]] = (),
) -> None:
    """Hold what a file has to what a model takes from it: anything else would run on random numbers.

    Args:
        where: the folder, or the key that named it.
        model: class of the model.
        missing: tensors that the model has and the file does not.
        unexpected: tensors that the file has and the model does not.
        mismatched: names with the shapes in file and model.

    Raises:
        ModelError: naming the first few of each kind.
    """
    shapes = [f"{name} {list(file)} for {list(own)}" for name, file, own in mismatched]
    kinds = {"missing": missing, "not of this model": unexpected, "of another shape": shapes}
    faults = [
        f"{len(names)} {kind} ({_first(names)})" for kind, given in kinds.items() if (names := sorted(given))
    ]
    if faults:
        raise ModelError(
            where,
            f"does not hold the tensors of {model}: {', '.join(faults)}",
            "give the files of one whole model, with its own config",
        )


def _first(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _without_adapter(folder: Path) -> Generator[Path]:
    """The folder, or links to its files but those of an adapter, which transformers would load into the model."""
    if not (folder / "adapter_config.json").is_file():
        yield folder
        return
    with TemporaryDirectory() as made:
        alone = Path(made) / folder.resolve().name
        alone.mkdir()
        for path in folder.resolve().iterdir():
            if not path.name.startswith("adapter_"):
                (alone / path.name).symlink_to(path)
        yield alone


@contextmanager
def _without_report() -> Generator[None]:
    """Inside, transformers prints no table of tensors, which the one-line error says."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def stored_quantization(folder: Path) -> str | None:
    """`int8` or `int4` of bitsandbytes, or the method's own name, where the weights in a folder are quantized already."""
    try:
        stored = read_json(folder / "config.json").get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return None  # whoever reads the config says so
    if not isinstance(stored, dict):
        return None
    found = cast(dict[str, Any], stored)
    bits = {"int4": found.get("load_in_4bit"), "int8": found.get("load_in_8bit")}
    return next((name for name, used in bits.items() if used), str(found.get("quant_method")))


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
        ConfigError: bitsandbytes is not installed.
    """
    if quantization is None:
        return None
    import_extra("bitsandbytes", "model.quantization")
    from transformers import BitsAndBytesConfig

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
