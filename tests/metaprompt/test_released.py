"""The published files: what their tensors are called, and that the numbers come out."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metashot.base.errors import CheckpointError
from metashot.metaprompt.released import load_released_prompt, load_released_regularizer
from metashot.metaprompt.soft_prompt import load_prompt

WIDTH, RANK, HIDDEN, PROMPT = 8, 5, 3, 4


def released_state(prefix: str = "") -> dict[str, Tensor]:
    """Names and shapes as the released class stores them."""
    torch.manual_seed(1)
    state: dict[str, Tensor] = OrderedDict(
        grad_mean=torch.randn(WIDTH),
        grad_std=torch.zeros(WIDTH),
        grad_s=torch.zeros(WIDTH),
        k=torch.tensor([100.0]),
    )
    for layer in range(2):
        state[f"mlp.layers.{layer}.u"] = torch.randn(WIDTH, RANK)
        state[f"mlp.layers.{layer}.v"] = torch.randn(RANK, WIDTH)
        state[f"mlp.layers.{layer}.bias"] = torch.randn(WIDTH)
    state["mlp.linear_1.weight"], state["mlp.linear_1.bias"] = torch.randn(HIDDEN, WIDTH), torch.randn(HIDDEN)
    state["mlp.linear_2.weight"], state["mlp.linear_2.bias"] = torch.randn(1, HIDDEN), torch.randn(1)
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def by_the_formula(state: dict[str, Tensor], g: Tensor, e: Tensor, rescale: str) -> tuple[Tensor, Tensor]:
    """docs/methods.md, the regularizer, written out."""
    h = g
    for layer in range(2):
        u, v, b = (state[f"mlp.layers.{layer}.{part}"] for part in ("u", "v", "bias"))
        h = torch.clamp(torch.stack([u @ (v @ row) + b for row in h]), min=0)
    if rescale == "row_l2":
        x = torch.stack(
            [
                row / (row.square().sum().sqrt() + 1e-8) * (o.square().sum().sqrt() + 1e-8)
                for row, o in zip(h, g, strict=True)
            ]
        )
    elif rescale == "matrix_l2":
        x = h / h.square().sum().sqrt() * g.square().sum().sqrt()
    elif rescale == "row_l1":
        x = torch.stack([row / row.abs().mean() * o.abs().mean() for row, o in zip(h, g, strict=True)])
    else:
        x = h / h.abs().mean() * g.abs().mean()
    hidden = torch.relu(state["mlp.linear_1.weight"] @ e + state["mlp.linear_1.bias"])
    z = torch.sigmoid(state["mlp.linear_2.weight"] @ hidden + state["mlp.linear_2.bias"])
    return (1 - z) * x + z * g, z


@pytest.mark.parametrize("rescale", ["row_l2", "matrix_l2", "row_l1", "matrix_l1"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_state_dict_gives_the_released_outputs(tmp_path: Path, rescale: str, prefix: str):
    torch.save(released_state(prefix), tmp_path / "gradient_edit.pt")
    regularizer = load_released_regularizer(tmp_path / "gradient_edit.pt", rescale=rescale)
    gradient, state = torch.randn(PROMPT, WIDTH), torch.randn(WIDTH)
    out, coefficient = regularizer(gradient, state)
    expected, z = by_the_formula(released_state(), gradient, state, rescale)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(coefficient, z.squeeze())
    assert not out.requires_grad


def test_a_file_that_lacks_a_part_is_refused(tmp_path: Path):
    state = released_state()
    del state["mlp.layers.1.u"]
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"lacks u, v or bias"):
        load_released_regularizer(tmp_path / "a.pt")
    state = released_state()
    state["mlp.layers.0.bias"] = torch.randn(WIDTH + 1)
    torch.save(state, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"low-rank layers with shapes"):
        load_released_regularizer(tmp_path / "b.pt")
    state = {name: tensor for name, tensor in released_state().items() if "linear_2" not in name}
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="no coefficient network for width 8"):
        load_released_regularizer(tmp_path / "c.pt")


def test_a_prompt_file_is_its_tensor(tmp_path: Path):
    prompt = torch.randn(100, 16)
    torch.save(torch.nn.Parameter(prompt), tmp_path / "prompt_x.pt")
    assert torch.equal(load_released_prompt(tmp_path / "prompt_x.pt"), prompt)
    assert torch.equal(load_prompt(tmp_path / "prompt_x.pt", width=16), prompt)
    with pytest.raises(CheckpointError, match="prompt of width 16, but the model's embeddings have width 48"):
        load_prompt(tmp_path / "prompt_x.pt", width=48)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_nothing_is_executed_on_loading(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    for load in (load_released_prompt, load_released_regularizer):
        with pytest.raises(CheckpointError, match="not readable as plain tensors"):
            load(tmp_path / "evil.pt")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a file of torch"])
def test_other_files_are_refused_in_words(tmp_path: Path, content: bytes):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_released_prompt(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        load_released_prompt(tmp_path / "missing.pt")
