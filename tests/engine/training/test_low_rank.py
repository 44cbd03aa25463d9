"""LoRA on every linear layer means on every one: also on matrices that hold one layer for each expert."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from metashot.base.errors import ConfigError
from metashot.engine.models.adapters import with_adapter
from metashot.engine.training.config import LoraConfig
from metashot.engine.training.low_rank import adapter_weights, expert_matrices, with_lora

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    "initializer_range": 0.1,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "Mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    "GptOss": {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8},
    "DeepseekV3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
        "moe_intermediate_size": 16, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    },
}  # fmt: skip
MAMBAS: dict[str, Any] = {
    "Mamba": {"state_size": 8},
    "Mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "FalconH1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
}
IDS = torch.arange(2, 22)[None]


def model(name: str, sizes: dict[str, Any]) -> PreTrainedModel:
    config = getattr(transformers, f"{name}Config")
    known = {key: value for key, value in SIZES.items() if key in config().to_dict()}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(**known | sizes))


def trained(base: PreTrainedModel, lora: LoraConfig) -> PreTrainedModel:
    """Three steps; every update has moved."""
    wrapped = with_lora(base, lora).train()
    mine = [one for one in wrapped.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(mine, lr=2.0)
    for _ in range(3):
        wrapped(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    still = [name for name, one in wrapped.named_parameters() if "lora_B" in name and not one.abs().max()]
    assert not still
    return wrapped.eval()


@pytest.mark.parametrize("last_layers", [None, 1])
@pytest.mark.parametrize("name", EXPERTS)
def test_experts_are_updated_and_the_adapter_comes_back_with_the_same_logits(
    name: str, last_layers: int | None, tmp_path: Path
) -> None:
    base = model(name, EXPERTS[name])
    matrices = expert_matrices(base, last_layers)
    assert {matrix.rpartition(".")[2] for matrix in matrices} == {"gate_up_proj", "down_proj"}
    assert last_layers is None or all(".layers.1." in matrix for matrix in matrices)
    wrapped = trained(base, LoraConfig(r=2, alpha=4, last_layers=last_layers))
    tensors = {key: tensor.contiguous() for key, tensor in adapter_weights(wrapped).items()}
    assert any("experts" in key for key in tensors)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    wrapped.peft_config["default"].save_pretrained(tmp_path)  # pyright: ignore
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # PEFT's, of patterns that one architecture lacks
        merged = with_adapter(model(name, EXPERTS[name]), tmp_path, quantized=False).eval()
        torch.testing.assert_close(
            merged(input_ids=IDS).logits, wrapped(input_ids=IDS).logits, atol=1e-4, rtol=1e-4
        )


def test_experts_take_no_dropout(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"trainer.lora.dropout: 0.1 cannot be applied to matrices of experts"
    ):
        with_lora(model("Mixtral", EXPERTS["Mixtral"]), LoraConfig(dropout=0.1))
    assert with_lora(
        model("Mixtral", EXPERTS["Mixtral"]), LoraConfig(dropout=0.1, target_modules=("q_proj",))
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MAMBAS)
def test_all_linear_layers_of_a_mamba_are_those_that_can_be_updated(name: str) -> None:
    trained(model(name, MAMBAS[name]), LoraConfig(r=2))


def test_a_layer_that_cannot_be_updated_is_named_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match=r"out_proj.*leave it empty for all linear layers"):
        with_lora(model("Mamba", MAMBAS["Mamba"]), LoraConfig(target_modules=("out_proj",)))
