"""Tiny random models of many architectures, from the configs that transformers ships."""

import dataclasses
import inspect

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

_COMMON = {
    "vocab_size": 320, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 1024, "sliding_window": 16, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "n_routed_experts": 4, "n_shared_experts": 1, "shared_expert_intermediate_size": 32,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "moe_num_experts": 4, "moe_k": 2,
    "moe_num_shared_experts": 1, "moe_layer_start_index": 0,
}  # fmt: skip
_LATENT = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 16,
           "head_dim": 4, "num_key_value_heads": 4}  # fmt: skip
_MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_d_ssm": 48, "mamba_n_heads": 4, "mamba_d_head": 24,
          "mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_dt_rank": 4, "use_mamba_kernels": False}  # fmt: skip
_DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
          "layer_types": ["linear_attention", "full_attention"]}  # fmt: skip
_SPECIAL = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 8},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "falcon_h1": {**_MAMBA, "mamba_d_head": 12},
    "glm4_moe_lite": _LATENT,
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gptj": {"rotary_dim": 8},
    "jamba": {**_MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 8, "num_hidden_layers": 2},
    "mamba2": {"num_heads": 4, "head_dim": 24, "state_size": 8, "n_groups": 1, "chunk_size": 16},
    "minicpm3": _LATENT,
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 24,
                   "ssm_state_size": 8, "n_groups": 1, "chunk_size": 16},
    "qwen3_5_text": _DELTA,
    "qwen3_next": _DELTA,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 48, "attention_window_size": 16},
    "stablelm": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "youtu": _LATENT,
}  # fmt: skip


def _tiny_architecture(name, dtype=torch.float32, **overrides):
    """A two-layer model with weights large enough (`_scale` times what they are drawn as) for scores to differ."""
    kind = CONFIG_MAPPING[name]
    fields = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    known = fields | set(inspect.signature(kind.__init__).parameters) | set(kind.attribute_map)
    scale = overrides.pop("_scale", 5)
    wanted = {**_COMMON, **_SPECIAL.get(name, {}), **overrides}
    config = kind(**{key: value for key, value in wanted.items() if key in known or key in overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(scale)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_architecture():
    """`tiny_architecture(model_type, dtype=float32, **config)` builds a model of 320 tokens."""
    return _tiny_architecture
