"""PEFT adapters: where they are, what they stand on, and the model with one in its weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from metashot.base.errors import ModelError
from metashot.base.extras import import_extra
from metashot.base.files import sha256_file
from metashot.base.json_text import digest_of, read_json
from metashot.engine.models.compatibility import check_fit
from metashot.engine.models.exports import check_export
from metashot.engine.models.hub import hub_adapter
from metashot.engine.models.weights import check_tensors, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model of its own."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def adapter_folder(adapter: str) -> Path:
    """The local folder of an adapter, downloaded if it is a hub id.

    Raises:
        ModelError: no such folder or id, one that holds no adapter in safetensors, or an export of ours that is not
            as it was written.
    """
    path = Path(adapter).expanduser()
    folder = path if path.exists() else hub_adapter(adapter)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(
                "model.adapter", f"{str(folder)!r} holds no {name}", "give a folder that PEFT saved"
            )
    check_export(folder)
    return folder


def adapter_digest(base: str, folder: Path) -> str:
    """sha256 over the base's digest and the adapter's files.

    The config counts without its paths, so that a moved adapter stays the same one.

    Raises:
        ModelError: the adapter says that it was trained on other weights.
    """
    check_fit(folder, weights=base)
    config = _config(folder)
    for key in ("base_model_name_or_path", "revision"):
        config.pop(key, None)
    return digest_of({"base": base, "config": config, "weights": sha256_file(folder / ADAPTER_WEIGHTS)})


def _config(folder: Path) -> dict[str, Any]:
    try:
        return {**read_json(folder / ADAPTER_CONFIG)}
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            str(folder / ADAPTER_CONFIG), f"cannot be read: {error}", "save the adapter again"
        ) from error


def with_adapter(model: PreTrainedModel, folder: Path, *, quantized: bool) -> PreTrainedModel:
    """`model` with a PEFT adapter: merged into its weights, or beside them where those are quantized.

    Raises:
        ModelError: peft is missing, or the adapter is for another model, or is one that stands in the prompt.
    """
    import_extra("peft", "model.adapter")
    from peft import PeftConfig, PeftModel

    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise ModelError(
            "model.adapter",
            f"{str(folder)!r} is a {config.peft_type.value} adapter: virtual tokens, which cannot be merged into weights",
            "use method=soft_prompt, or a LoRA adapter",
        )
    if getattr(config, "alora_invocation_tokens", None):
        raise _unmergeable(folder, config, "it changes only what follows its invocation tokens (aLoRA)")
    _part_head(model, folder)
    named = f"the adapter {str(folder)!r}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="fan_in_fan_out is set to"
            )  # PEFT decides layer by layer
            for known in ("Found missing adapter keys", "Already found a `peft_config`"):
                warnings.filterwarnings("ignore", message=known)  # told below, in one line
            wrapped: Any = PeftModel.from_pretrained(model, folder)
            told = wrapped.load_adapter(str(folder), "default")  # the first call keeps its result to itself
        check_tensors("model.adapter", named, told.missing_keys, told.unexpected_keys)
        if not hasattr(type(wrapped.base_model), "merge_and_unload"):
            raise _unmergeable(folder, config, "it changes the attention itself")
        return wrapped.get_base_model() if quantized else wrapped.merge_and_unload()
    except KeyError as error:  # PEFT looks for the keys of heads and embeddings before it compares
        check_tensors("model.adapter", named, [str(error.args[0])], ())
        raise
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            "model.adapter",
            f"{str(folder)!r} does not fit {type(model).__name__}: {first_line(error)}",
            "use the model that the adapter was trained on",
        ) from error


def _unmergeable(folder: Path, config: Any, reason: str) -> ModelError:
    return ModelError(
        "model.adapter",
        f"{str(folder)!r} is a {config.peft_type.value} adapter that cannot be merged into weights: {reason}",
        "use a LoRA adapter",
    )


def _part_head(model: PreTrainedModel, folder: Path) -> None:
    """Untie an updated head or embedding: the update is of one of the two, and merging it must not change the other."""
    targets = _config(folder).get("target_modules") or ()
    inside, outside = model.get_input_embeddings(), model.get_output_embeddings()
    if (
        outside is None
        or isinstance(targets, str)
        or cast(Any, outside).weight is not cast(Any, inside).weight
    ):
        return
    from torch import nn

    names = {name for name, module in model.named_modules() if module is inside or module is outside}
    if {name.rpartition(".")[2] for name in names} & set(targets):
        cast(Any, outside).weight = nn.Parameter(cast(Any, outside).weight.detach().clone())
        model.config.tie_word_embeddings = False


def adapter_base(folder: Path) -> str:
    """The folder or hub id that an adapter was trained on, from its `adapter_config.json`.

    Raises:
        ModelError: the adapter does not say.
    """
    base = _config(folder).get("base_model_name_or_path")
    if not base:
        raise ModelError(
            "model.adapter",
            f"{str(folder)!r} does not name the model that it was trained on",
            "name it: model=<its base> model.adapter=<folder>",
        )
    return str(base)
