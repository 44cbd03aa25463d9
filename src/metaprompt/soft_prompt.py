"""Soft prompts: how they start, how they are stored, and the words they are nearest to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from metashot.base.components.values import convert
from metashot.base.errors import CheckpointError, ConfigError
from metashot.base.files import write_atomic
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import input_embeddings
from metashot.metaprompt.prompt_starts import GivenStart, PromptStart
from metashot.metaprompt.released import load_released_prompt

_TENSOR_NAME = "prompt"
_DIGEST = "sha256"
"""Key of the file's metadata; files of other programs have none."""


@dataclass(frozen=True, slots=True)
class NearestToken:
    """A vocabulary token near a prompt vector: its piece and cosine."""

    piece: str
    cosine: float


def initial_prompt(language_model: LanguageModel, length: int, init: PromptStart | str, seed: int) -> Tensor:
    """A new soft prompt [length, d] in float32; a pure function of its arguments.

    Raises:
        ConfigError: length below 1, an unknown `init`, or one that gives something else.
    """
    if length < 1:
        raise ConfigError("prompt_length", f"{length} prompt tokens", "give at least 1")
    start = cast(PromptStart, convert(GivenStart, init, "prompt_init"))
    table = input_embeddings(language_model).detach()
    prompt = start.make(table, length, torch.Generator().manual_seed(seed))
    if prompt.shape != (length, table.shape[1]):
        raise ConfigError(
            "prompt_init",
            f"start {start.name!r} made a prompt of shape {tuple(prompt.shape)}",
            f"make one of {(length, table.shape[1])}",
        )
    return prompt.detach().float().cpu()


def check_positions(language_model: LanguageModel, length: int, tokens: int, keys: tuple[str, str]) -> None:
    """Refuse a prompt that leaves no room for the texts behind it.

    Args:
        language_model: whose positions.
        length: virtual tokens.
        tokens: most tokens of a text.
        keys: the config keys of both.

    Raises:
        ConfigError: together they are more than the model has positions.
    """
    if length + tokens > language_model.context_length:
        raise ConfigError(
            keys[0],
            f"{length} virtual tokens and up to {tokens} of text ({keys[1]}) are more than the "
            f"{language_model.context_length} positions of {language_model.spec.name}",
            f"lower {keys[0]} or {keys[1]}",
        )


def save_prompt(path: Path, prompt: Tensor) -> None:
    """Write a prompt [P, d] as safetensors with its digest, atomically."""
    tensor = prompt.detach().float().cpu().contiguous()
    write_atomic(path, save({_TENSOR_NAME: tensor}, metadata={_DIGEST: _digest(tensor)}))


def load_prompt(path: Path, width: int | None = None) -> Tensor:
    """A prompt [P, d] from our safetensors file or a published `.pt`.

    Args:
        path: the file.
        width: the model's embedding width, checked when given.

    Raises:
        CheckpointError: missing, damaged, or of another width.
    """
    if path.suffix == ".pt":
        return load_released_prompt(path, width)
    try:
        with safe_open(path, "pt") as file:
            prompt, told = file.get_tensor(_TENSOR_NAME), (file.metadata() or {}).get(_DIGEST)
        if told is not None and told != _digest(prompt):
            raise ValueError("it differs from its digest")
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(str(path), f"no readable prompt: {error}", "give a prompt file") from error
    if width is not None and prompt.shape[1] != width:
        raise CheckpointError(
            str(path),
            f"prompt of width {prompt.shape[1]}, but the model's embeddings have width {width}",
            "choose the model that the prompt was made for, or another prompt",
        )
    return prompt


def _digest(prompt: Tensor) -> str:
    """sha256 over shape and values."""
    return hashlib.sha256(f"{tuple(prompt.shape)}\n".encode() + prompt.numpy().tobytes()).hexdigest()


def nearest_tokens(language_model: LanguageModel, prompt: Tensor, count: int) -> list[list[NearestToken]]:
    """The `count` vocabulary tokens of highest cosine for each prompt vector, best first."""
    table = functional.normalize(input_embeddings(language_model).detach().float(), dim=-1)
    rows = functional.normalize(prompt.detach().float().to(table.device), dim=-1)
    values, ids = (rows @ table.T).topk(min(count, table.shape[0]), dim=-1)
    pieces = language_model.tokenizer.convert_ids_to_tokens
    return [
        [NearestToken(str(pieces(int(i))), float(v)) for i, v in zip(row_ids, row_values, strict=True)]
        for row_ids, row_values in zip(ids, values, strict=True)
    ]
