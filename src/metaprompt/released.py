"""Import of the published SUPMER files: `prompt_*.pt` (a tensor) and `gradient_edit_*.pt` (a state dict)."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metashot.base.errors import CheckpointError
from metashot.metaprompt.meta.config import LayerInit, RegularizerConfig, Rescale
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer

_STATISTICS = re.compile(r"(^|\.)(grad_mean|grad_std|grad_s|k)$")
_FACTOR = re.compile(r"^(?P<stem>.*?)[._]?(?P<part>u|v)$", re.IGNORECASE)


def load_released_prompt(path: Path | str, width: int | None = None) -> Tensor:
    """The prompt of a published `prompt_*.pt`: float32 [prompt_length, d].

    Args:
        path: the file.
        width: the embedding width of the model that it is for, checked when given.

    Raises:
        CheckpointError: no such file, not a tensor file, not a matrix, or of another width.
    """
    value = _load(Path(path))
    if isinstance(value, Mapping) and len(value) == 1:
        value = next(iter(value.values()))
    if not isinstance(value, Tensor) or value.dim() != 2:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(str(path), f"holds {found}, not one prompt matrix", "give a prompt_*.pt file")
    if width is not None and value.shape[1] != width:
        raise CheckpointError(
            str(path),
            f"prompt of width {value.shape[1]}, but the model's embeddings have width {width}",
            "choose the model that the prompt was made for, or another prompt",
        )
    return value.detach().float().clone()


def load_released_regularizer(path: Path | str, rescale: Rescale = Rescale.ROW_L2) -> GradientRegularizer:
    """The gradient regularizer of a published `gradient_edit_*.pt`, frozen.

    Tensors are recognized by the end of their name and by their shape, so a prefix does not matter.

    Args:
        path: the file.
        rescale: how h is given the size of g; the file does not store it.

    Returns:
        A function (gradient [P, d], state [d]) -> (gradient [P, d], coefficient []).

    Raises:
        CheckpointError: no such file, or tensors that do not make up a regularizer.
    """
    path = Path(path)
    value = _load(path)
    if not isinstance(value, Mapping) or not all(isinstance(item, Tensor) for item in value.values()):
        raise CheckpointError(str(path), "is not a state dict of tensors", "give a gradient_edit_*.pt file")
    tensors = {name: item.float() for name, item in value.items() if not _STATISTICS.search(name)}
    layers = _layers(path, tensors)
    width, rank = layers[0]["u"].shape
    coefficient = _coefficient(path, tensors, width)
    regularizer = GradientRegularizer(
        width,
        RegularizerConfig(
            rank=rank,
            hidden_layers=len(layers) - 1,
            residual=False,
            last_activation="relu",
            init=LayerInit.NORMAL,
            rescale=rescale,
            coefficient_width=coefficient["hidden.weight"].shape[0],
        ),
    )
    state = {f"layers.{i}.{part}": tensor for i, layer in enumerate(layers) for part, tensor in layer.items()}
    regularizer.load_state_dict(state | coefficient)
    return regularizer.requires_grad_(False).eval()


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(str(path), "no such file", "check the path") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            str(path), f"not readable as plain tensors: {reason}", "give a file of tensors only"
        ) from error


def _layers(path: Path, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The low-rank layers in order, taken out of `tensors`."""
    stems: dict[str, dict[str, Tensor]] = {}
    for name in [name for name in tensors if tensors[name].dim() == 2]:
        if match := _FACTOR.match(name):
            stems.setdefault(match["stem"], {})[match["part"].lower()] = tensors.pop(name)
    ordered = sorted(stems, key=lambda stem: [int(number) for number in re.findall(r"\d+", stem)])
    layers: list[dict[str, Tensor]] = []
    for stem in ordered:
        layer = stems[stem]
        bias = next((n for n in tensors if n.startswith(stem) and tensors[n].dim() == 1), None)
        if set(layer) != {"u", "v"} or bias is None:
            raise CheckpointError(
                str(path), f"layer {stem!r} lacks u, v or bias", "give a gradient_edit_*.pt file"
            )
        layer["bias"] = tensors.pop(bias)
        layers.append(layer)
    shapes = {(tuple(x["u"].shape), tuple(x["v"].T.shape), x["bias"].shape[0]) for x in layers}
    if len(shapes) != 1 or any(u != v or u[0] != b for u, v, b in shapes):
        raise CheckpointError(
            str(path),
            f"low-rank layers with shapes {sorted(map(str, shapes)) or 'none'}",
            "every layer needs u [d, r], v [r, d] and bias [d] of the same d and r",
        )
    return layers


def _coefficient(path: Path, tensors: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """W1 [h, d], b1 [h], w2 [1, h] and b2 [1], found by shape among the remaining tensors."""
    matrices = [t for t in tensors.values() if t.dim() == 2]
    first = next((t for t in matrices if t.shape[1] == width and t.shape[0] > 1), None)
    hidden = 0 if first is None else first.shape[0]
    second = next((t for t in matrices if tuple(t.shape) == (1, hidden)), None)
    first_bias = next((t for t in tensors.values() if t.dim() == 1 and t.shape[0] == hidden), None)
    second_bias = next((t for t in tensors.values() if t.dim() == 1 and t.shape[0] == 1), None)
    if first is None or second is None or first_bias is None or second_bias is None:
        raise CheckpointError(
            str(path),
            f"no coefficient network for width {width} among {sorted(tensors)}",
            "it needs weights [h, d] and [1, h] with biases [h] and [1]",
        )
    return {"hidden.weight": first, "hidden.bias": first_bias,
            "output.weight": second, "output.bias": second_bias}  # fmt: skip
